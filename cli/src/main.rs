mod board;
mod rest;
fn main() {}
