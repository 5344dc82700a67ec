mod board;
mod config;
mod demo;
mod rest;
fn main() {}
