//! How much may an HTTP/2 server make a client of ours hold?
//!
//! Every limit of hyper's, once for both who dial: `HttpClient`, and the proxy of the program.

use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// What a server may send on a stream and in all before we have read it.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;
/// What of a request waits for the server's window.
const SEND_BYTES: usize = 1024 * 1024;
/// RFC 9113 §4.2 and RFC 7541 §4.2: the sizes that both sides begin with.
const FRAME_BYTES: u32 = 16 * 1024;
const TABLE_BYTES: u32 = 4096;
/// Requests at one time before the server has said how many.
const FIRST_REQUESTS: usize = 100;
/// Streams that ended early: how many are remembered and how long, so that late frames do no harm, and how
/// many of the server's mistakes end the connection.
const RESETS: usize = 50;
const RESET_TIME: Duration = Duration::from_secs(1);
const ERROR_RESETS: usize = 1024;

/// Begins an HTTP/2 connection with every limit set; the header section of an answer has `header_bytes` at most.
/// No part of the interface.
#[doc(hidden)]
#[must_use]
pub fn http2_client(header_bytes: u32) -> http2::Builder<TokioExecutor> {
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(header_bytes)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_max_send_streams(FIRST_REQUESTS)
        .max_frame_size(FRAME_BYTES)
        .header_table_size(TABLE_BYTES)
        .max_send_buf_size(SEND_BYTES)
        .max_concurrent_reset_streams(RESETS)
        .reset_stream_duration(RESET_TIME)
        .max_local_error_reset_streams(ERROR_RESETS)
        .clone()
}
