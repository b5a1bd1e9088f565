//! RFC 9110 section 14 over the wire, on a file in memory and on one that is read while it is sent.

use testkit::http::Message;
use testkit::wait_until;

use crate::support::{Server, Volume};

const LARGE: usize = 3 * 1024 * 1024;

/// Every position differs from its neighbours.
fn large() -> String {
    (0..LARGE / 8).fold(String::new(), |text, number| text + &format!("{number:08}"))
}

fn serve() -> (Volume, Server) {
    let volume = Volume::with(&[("small", "0123456789"), ("large", &large()), ("empty", "")]);
    let server = Server::start(&volume.root(), &[]);
    (volume, server)
}

fn ask(server: &Server, path: &str, range: &str) -> Message {
    server.request("GET", path, &[("Range", range)])
}

#[track_caller]
fn part_of(server: &Server, range: &str, content_range: &str, body: &str) {
    let answer = ask(server, "/small", range);
    assert_eq!((answer.status(), answer.text()), (206, body), "{range}");
    assert_eq!(answer.header("content-range"), Some(content_range), "{range}");
    assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()), "{range}");
}

#[track_caller]
fn whole(server: &Server, range: &str) {
    let answer = ask(server, "/small", range);
    assert_eq!((answer.status(), answer.text()), (200, "0123456789"), "{range}");
    assert_eq!(answer.header("content-range"), None, "{range}");
}

#[test]
fn range_first() {
    let (_volume, server) = serve();
    part_of(&server, "bytes=0-4", "bytes 0-4/10", "01234");
    part_of(&server, "bytes=3-3", "bytes 3-3/10", "3");
    part_of(&server, "bytes=5-1000", "bytes 5-9/10", "56789");
}

#[test]
fn range_suffix() {
    let (_volume, server) = serve();
    part_of(&server, "bytes=-4", "bytes 6-9/10", "6789");
}

#[test]
fn range_suffix_too_long() {
    let (_volume, server) = serve();
    part_of(&server, "bytes=-11", "bytes 0-9/10", "0123456789");
}

#[test]
fn range_open() {
    let (_volume, server) = serve();
    part_of(&server, "bytes=7-", "bytes 7-9/10", "789");
}

#[test]
fn range_multi() {
    let (_volume, server) = serve();
    let answer = ask(&server, "/small", "bytes=0-1, 4-5, -2, 100-200");
    assert_eq!(answer.status(), 206);
    let content_type = answer.header("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range: &str, body: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {range}/10\r\n\r\n{body}"
        )
    };
    let expected =
        part("0-1", "01") + &part("4-5", "45") + &part("8-9", "89") + &format!("\r\n--{boundary}--\r\n");
    assert_eq!(answer.text(), expected);
    assert_eq!(answer.header("content-length"), Some(expected.len().to_string().as_str()));
    assert_eq!(answer.header("content-range"), None);

    let answer = ask(&server, "/large", "bytes=2000000-2000007, 0-7");
    assert!(
        answer.text().contains("bytes 2000000-2000007/3145728\r\n\r\n00250000\r\n--"),
        "{}",
        answer.text()
    );
    assert!(answer.text().contains("bytes 0-7/3145728\r\n\r\n00000000\r\n--"), "{}", answer.text());
    // Of several, one that exists is one.
    part_of(&server, "bytes=3-4,50-60", "bytes 3-4/10", "34");
}

#[test]
fn range_overlap() {
    let (_volume, server) = serve();
    whole(&server, "bytes=0-4,4-8");
    whole(&server, "bytes=0-,0-");
    whole(&server, "bytes=-5,-1");
}

#[test]
fn range_many() {
    let (_volume, server) = serve();
    whole(
        &server,
        &format!("bytes={}", (0..17).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(",")),
    );
    whole(&server, &format!("bytes={}", "0-,".repeat(2000)));
}

#[test]
fn range_unsatisfiable() {
    let (_volume, server) = serve();
    for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999-"] {
        let answer = ask(&server, "/small", range);
        assert_eq!((answer.status(), answer.header("content-range")), (416, Some("bytes */10")), "{range}");
    }
    assert_eq!(ask(&server, "/empty", "bytes=0-").status(), 416);
    assert_eq!(server.get("/empty").status(), 200);
}

#[test]
fn range_malformed() {
    let (_volume, server) = serve();
    for range in
        ["bytes=5-4", "bytes=a-b", "bytes", "bytes=", "bytes=--1", "items=0-4", "bytes=0-1,x", "bytes=,"]
    {
        whole(&server, range);
    }
}

#[test]
fn range_on_head() {
    let (_volume, server) = serve();
    let answer = server.request("HEAD", "/small", &[("Range", "bytes=0-4")]);
    assert_eq!((answer.status(), answer.header("content-length")), (200, Some("10")));
}

#[test]
fn if_range_etag() {
    let (_volume, server) = serve();
    let etag = server.get("/small").header("etag").unwrap().to_owned();
    let ask =
        |tag: &str| server.request("GET", "/small", &[("Range", "bytes=0-4"), ("If-Range", tag)]).status();
    assert_eq!(ask(&etag), 206);
    assert_eq!(ask("\"other\""), 200);
    assert_eq!(ask(&format!("W/{etag}")), 200);
}

#[test]
fn if_range_date() {
    let (_volume, server) = serve();
    wait_until("the second is over", || server.get("/small").header("last-modified").is_some());
    let modified = server.get("/small").header("last-modified").unwrap().to_owned();
    let ask =
        |date: &str| server.request("GET", "/small", &[("Range", "bytes=0-4"), ("If-Range", date)]).status();
    assert_eq!(ask(&modified), 206);
    assert_eq!(ask("Sun, 06 Nov 1994 08:49:37 GMT"), 200);
    assert_eq!(ask("Fri, 01 Jan 2100 00:00:00 GMT"), 200);
}

#[test]
fn range_of_a_file_that_is_not_held_in_memory() {
    let (_volume, server) = serve();
    let text = large();
    assert_eq!(server.get("/large").body, text.as_bytes());
    for (first, last) in [(0, 7), (131_070, 131_080), (1_000_001, 2_000_003), (LARGE - 3, LARGE - 1)] {
        let answer = ask(&server, "/large", &format!("bytes={first}-{last}"));
        assert_eq!(answer.status(), 206);
        assert_eq!(answer.text(), &text[first..=last]);
    }
}
