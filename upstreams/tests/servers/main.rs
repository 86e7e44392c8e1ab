//! Both servers from outside: real listeners, real connections.

mod api;
mod chat;
mod client;
mod image_files;
mod image_reads;
mod image_writes;
mod shutdown;
mod thumbnails;
