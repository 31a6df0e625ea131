//! Send one HTTP request to another endpoint and tell its answer.
//!
//! The peer is dialled as `ping` dials it, so who answers is known before the request goes out, and the
//! peer knows who asks.

mod address;
mod download;
mod upload;

use std::time::Duration;

use endpoint_core::{
    alpn::Alpn,
    http::{HttpClient, HttpError, ResponseBody},
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use serde_json::json;
use tokio::time::timeout;

use self::{address::Address, download::Download};
use super::{
    Context,
    connect::{self, Dialled},
};
use crate::{
    args::Fetch,
    error::{CliError, ExitKind, Result},
};

pub(super) async fn run(args: Fetch, context: &Context) -> Result<()> {
    let address = Address::parse(&args.peer.peer)?;
    let alpn = match (args.http1, args.peer.tcp) {
        (true, _) => Alpn::HTTP_1_1,
        (false, true) => Alpn::H2,
        (false, false) => Alpn::H3,
    };
    // Everything that can be wrong here is found before anybody is dialled.
    let body = upload::open(args.data.as_deref()).await?;
    let mut request = Request::builder().method(method(&args)?).body(body.stream).map_err(odd)?;
    fields(&mut request, &args, body.length)?;
    let mut download = Download::new(&args, context.output)?;
    let mut peer = args.peer.clone();
    peer.peer = address.peer;
    peer.tcp |= args.http1;
    let dialled = connect::connect(&peer, &alpn, context).await?;
    let authority = args.host.as_deref().unwrap_or(&dialled.host);
    *request.uri_mut() = Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query(address.path.as_str())
        .build()
        .map_err(odd)?;
    let patience = args.peer.timeout;
    let exchanged = exchange(request, &dialled, patience, &mut download).await;
    let response = match exchanged {
        Ok(response) => response,
        Err(Fault::Ours(fault)) => return Err(fault),
        Err(Fault::Silent) => {
            let message = format!("{} fell silent for {patience:?}", dialled.host);
            return Err(CliError::new("timeout", ExitKind::Unreachable, message)
                .hint("give it longer: --timeout 1m"));
        }
        Err(Fault::Connection(error)) => return Err(broken(&dialled, &error, &alpn).await),
    };
    let (own, peer) = (dialled.endpoint.fingerprint(), dialled.connection.peer_key().fingerprint());
    let object = json!({
        "peer": dialled.host,
        "fingerprint": peer.map(|key| key.to_string()),
        "alpn": alpn.to_string(),
        "carrier": dialled.connection.carrier().to_string().to_lowercase(),
        "status": response.status().as_u16(),
        "headers": download::fields(response.headers()),
    });
    download.end(&response, object)?;
    dialled.end().await;
    judge(response.status(), own)
}

/// Why there is no whole answer.
enum Fault {
    Connection(HttpError),
    Silent,
    Ours(CliError),
}

/// Sends the request and hands the answer to `download` as it comes.
async fn exchange(
    request: Request<upload::Body>,
    dialled: &Dialled,
    patience: Duration,
    download: &mut Download,
) -> std::result::Result<Response<()>, Fault> {
    let connection = &dialled.connection;
    let mut client = HttpClient::new(connection).await.map_err(Fault::Connection)?;
    let response = match timeout(patience, client.send(request)).await {
        Ok(response) => response.map_err(Fault::Connection)?,
        Err(_) => return Err(Fault::Silent),
    };
    let (parts, mut body) = response.into_parts();
    let response = Response::from_parts(parts, ());
    download.begin(&response).map_err(Fault::Ours)?;
    loop {
        match timeout(patience, next(&mut body)).await {
            Ok(None) => return Ok(response),
            Ok(Some(Ok(frame))) => download.take(frame).map_err(Fault::Ours)?,
            Ok(Some(Err(error))) => return Err(Fault::Connection(error)),
            Err(_) => return Err(Fault::Silent),
        }
    }
}

async fn next(
    body: &mut ResponseBody,
) -> Option<std::result::Result<http_body::Frame<bytes::Bytes>, HttpError>> {
    http_body_util::BodyExt::frame(body).await
}

/// What broke the exchange: the end of the connection says more than the stream's.
async fn broken(dialled: &Dialled, error: &HttpError, alpn: &Alpn) -> CliError {
    match timeout(CLOSE, dialled.connection.closed()).await {
        Ok(end) => dialled.fault(end, alpn).await,
        Err(_) => {
            let message =
                format!("{} broke off: {}", dialled.host, crate::error::plain(&error.to_string()));
            CliError::failure("http", message)
                .hint(format!("look what it offers: endpoint probe {}", dialled.host))
        }
    }
}

/// How long a close may lag behind the stream's end.
const CLOSE: Duration = Duration::from_millis(300);

fn method(args: &Fetch) -> Result<Method> {
    match &args.method {
        None if args.data.is_some() => Ok(Method::POST),
        None => Ok(Method::GET),
        Some(text) => text.parse().map_err(|_| {
            CliError::usage("usage", format!("`{text}` is no method"))
                .hint("name one: --method PUT")
        }),
    }
}

fn fields<B>(request: &mut Request<B>, args: &Fetch, length: Option<u64>) -> Result<()> {
    let agent = concat!("endpoint/", env!("CARGO_PKG_VERSION"));
    let fields = request.headers_mut();
    fields.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    if let Some(length) = length {
        fields.insert(header::CONTENT_LENGTH, length.into());
    }
    let mut given: Vec<HeaderName> = Vec::new();
    for text in &args.header {
        let fault = || {
            CliError::usage("usage", format!("`{text}` is no header field"))
                .hint("write name and value: --header 'Accept: text/plain'")
        };
        let (name, value) = text.split_once(':').ok_or_else(fault)?;
        let name: HeaderName = name.parse().map_err(|_| fault())?;
        let value: HeaderValue = value.trim().parse().map_err(|_| fault())?;
        if OURS.contains(&name) {
            return Err(CliError::usage("usage", format!("`{name}` is set by the program"))
                .hint("to ask for another site: --host NAME"));
        }
        // The first of a name takes the default's place; more of it are more lines.
        if given.contains(&name) {
            fields.append(name, value);
        } else {
            given.push(name.clone());
            fields.insert(name, value);
        }
    }
    Ok(())
}

/// Fields that frame the message (RFC 9112 §6, RFC 9114 §4.2).
const OURS: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn odd(error: http::Error) -> CliError {
    CliError::usage("usage", format!("this makes no request: {error}"))
        .hint("see how: endpoint fetch --help")
}

fn judge(status: StatusCode, own: endpoint_core::Fingerprint) -> Result<()> {
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(());
    }
    let message = format!("the answer is {status}");
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            CliError::new("not-authorized", ExitKind::NotAuthorized, message)
                .hint(format!("let this endpoint in, on the other side: endpoint trust add {own}"))
        }
        StatusCode::MISDIRECTED_REQUEST => CliError::failure("http-status", message)
            .hint("name a site that is served there: --host NAME"),
        _ => CliError::failure("http-status", message)
            .hint("see the header of the answer: endpoint fetch --include PEER/path"),
    })
}
