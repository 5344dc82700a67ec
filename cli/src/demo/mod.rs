mod expected;
mod load;
mod timeline;
mod verdict;
