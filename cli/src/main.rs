mod board;
mod config;
mod rest;
fn main() {}
