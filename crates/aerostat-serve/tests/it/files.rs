//! Files: whole or not there, within their bounds, in pages.

use std::io::{Read, Write};
use std::time::Duration;

use aerostat_serve::Config;
use serde_json::json;

use crate::support::{Answer, Bench, config, form, until};

fn bench(folder: &tempfile::TempDir) -> Bench {
    Bench::with(Config { data: Some(folder.path().join("data")), ..config() })
}

#[test]
fn what_is_uploaded_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(&folder);
    let text = format!("first\r\nsecond ü \u{2028}\n{}", "long ".repeat(500_000));
    let expires = [("expires_after[anchor]", None, "created_at"), ("expires_after[seconds]", None, "3600")];
    let fields = [&[("file", Some("in 1.jsonl"), &*text), ("purpose", None, "batch")][..], &expires].concat();
    let made = bench.send(&form(&fields)).json();
    assert_eq!(
        (&made["object"], &made["status"], &made["purpose"]),
        (&json!("file"), &json!("processed"), &json!("batch"))
    );
    assert_eq!(made["bytes"].as_u64(), Some(text.len() as u64));
    assert_eq!(made["expires_at"].as_u64(), made["created_at"].as_u64().map(|at| at + 3600));
    let id = made["id"].as_str().unwrap();
    assert_eq!(bench.get(&format!("/v1/files/{id}")).json(), made);
    let content = bench.get(&format!("/v1/files/{id}/content"));
    assert_eq!((content.status, content.body == text), (200, true));
    let ranged = |range: &str| {
        bench.send(&format!(
            "GET /v1/files/{id}/content HTTP/1.1\r\nhost: localhost\r\nrange: bytes={range}\r\nconnection: close\r\n\r\n"
        ))
    };
    let part = ranged("7-12");
    assert_eq!((part.status, part.body.as_str()), (206, "second"));
    assert_eq!(part.header("content-range"), Some(&*format!("bytes 7-12/{}", text.len())));
    assert_eq!(ranged("99999999-").status, 416);
    assert_eq!(
        bench.delete(&format!("/v1/files/{id}")).json(),
        json!({"id": id, "object": "file", "deleted": true})
    );
    assert_eq!(bench.get(&format!("/v1/files/{id}")).status, 404);
    assert_eq!(bench.delete(&format!("/v1/files/{id}")).status, 404);
}

#[test]
fn files_are_listed_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(&folder);
    let ids: Vec<String> = (0..3).map(|i| bench.upload(&format!("{i}"))).collect();
    let list = bench.get("/v1/files?limit=2").json();
    assert_eq!((&list["first_id"], &list["last_id"]), (&json!(ids[2]), &json!(ids[1])));
    assert_eq!((list["has_more"].as_bool(), list["data"].as_array().unwrap().len()), (Some(true), 2));
    let rest = bench.get(&format!("/v1/files?limit=2&after={}", ids[1])).json();
    assert_eq!((rest["has_more"].as_bool(), &rest["data"][0]["id"]), (Some(false), &json!(ids[0])));
    assert_eq!(bench.get("/v1/files?order=asc&purpose=batch").json()["first_id"], json!(ids[0]));
    assert_eq!(bench.get("/v1/files?purpose=other").json()["data"], json!([]));
    for bad in ["limit=0", "order=up", "novel=1"] {
        assert_eq!(bench.get(&format!("/v1/files?{bad}")).status, 400, "{bad}");
    }
    assert_eq!(bench.get("/v1/files?after=../../etc").status, 404);
}

#[test]
fn forms_that_are_not_complete_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(&folder);
    let file = ("file", Some("a"), "text");
    for (fields, status) in [
        (vec![file], 400),
        (vec![file, ("purpose", None, "fine-tune")], 400),
        (vec![("purpose", None, "batch")], 400),
        (vec![file, file, ("purpose", None, "batch")], 400),
        (vec![file, ("purpose", None, "batch"), ("purpose", None, "batch")], 400),
        (vec![file, ("purpose", None, "batch"), ("novel", None, "1")], 400),
        (vec![file, ("purpose", None, "batch"), ("expires_after[seconds]", None, "5")], 400),
    ] {
        assert_eq!(bench.send(&form(&fields)).status, status, "{fields:?}");
    }
    let plain = "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
                 connection: close\r\n\r\n{}";
    assert_eq!(bench.send(plain).status, 415);
    // A connection that breaks off in the middle.
    let whole = form(&[file, ("purpose", None, "batch")]);
    let mut connection = bench.connect();
    connection.write_all(&whole.as_bytes()[..whole.len() - 20]).unwrap();
    drop(connection);
    // One that ends before its length says, though its form is complete.
    let more = format!("content-length: {}", whole.len() - whole.find("\r\n\r\n").unwrap() - 4 + 5);
    let at = whole.find("content-length: ").unwrap();
    let line = whole[at..].lines().next().unwrap();
    let mut connection = bench.connect();
    connection.write_all(whole.replacen(line, &more, 1).as_bytes()).unwrap();
    drop(connection);
    let left = || std::fs::read_dir(folder.path().join("data/tmp")).unwrap().count();
    until("nothing", || left() == 0);
    assert_eq!(bench.get("/v1/files").json()["data"], json!([]));
    // Some that send all and go: their requests are dropped where they stand, at times while they write.
    let text = "x".repeat(150_000);
    let whole = form(&[("purpose", None, "batch"), ("file", Some("a"), &text)]);
    for _ in 0..20 {
        bench.connect().write_all(whole.as_bytes()).unwrap();
    }
    until("nothing again", || left() == 0);
}

#[test]
fn files_have_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { data: Some(folder.path().join("data")), data_bytes_max: 5000, ..config() };
    config.limits.file_bytes_max = 3000;
    config.limits.body_idle_time = Duration::from_millis(300);
    let bench = Bench::with(config);
    let upload = |bytes: usize| {
        let text = "a".repeat(bytes);
        bench.send(&form(&[("purpose", None, "batch"), ("file", Some("a"), &text)]))
    };
    let large = upload(4000);
    assert_eq!((large.status, large.code().as_str()), (413, "file_too_large"));
    assert_eq!(upload(2500).status, 200);
    let full = upload(2900);
    assert_eq!((full.status, full.code().as_str()), (413, "storage_full"));
    let mut connection = bench.connect();
    let text = form(&[("purpose", None, "batch"), ("file", Some("a"), "text")]);
    connection.write_all(&text.as_bytes()[..text.len() - 10]).unwrap();
    assert_eq!(Answer::read(&mut connection).status, 408);
    // A name never becomes a path.
    let traversal =
        bench.send(&form(&[("purpose", None, "batch"), ("file", Some("../../../tmp/x"), "text")]));
    assert_eq!((traversal.status, &traversal.json()["filename"]), (200, &json!("../../../tmp/x")));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn without_a_folder_there_are_no_files() {
    let bench = Bench::new();
    for path in ["/v1/files", "/v1/batches"] {
        let answer = bench.get(path);
        assert_eq!((answer.status, answer.code().as_str()), (404, "no_data"), "{path}");
    }
    for path in [
        "/v1/files/file-../../etc/passwd",
        "/v1/files/..%2f..",
        "/v1/batches/batch-1",
        "/v1/files/file-1/content",
    ] {
        let answer = bench.get(path);
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
}

#[test]
fn the_folder_is_for_one_server_and_for_one_user() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(&folder);
    let config = Config { data: Some(folder.path().join("data")), ..config() };
    let second = aerostat_serve::Server::start(config, crate::support::files(), crate::support::options());
    assert!(second.err().unwrap().to_string().contains("another server"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.path().join("data")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
    let mut connection = bench.connect();
    connection.write_all(b"GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    assert!(text.contains(" 200 "), "{text}");
}

/// A file that a disk had cut off came with 200, as if it were whole.
#[test]
fn a_file_that_has_lost_bytes_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let bench = bench(&folder);
    let id = bench.upload("all of it");
    let path = folder.path().join("data/files").join(&id[5..7]).join(&id);
    std::fs::write(path, "all").unwrap();
    let answer = bench.get(&format!("/v1/files/{id}/content"));
    assert_eq!((answer.status, answer.code().as_str()), (500, "file_damaged"), "{answer:?}");
    assert!(answer.body.contains("9 bytes") && !answer.body.contains("data/files"), "{answer:?}");
    let body = json!({"input_file_id": id, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let made = bench.post("/v1/batches", &body).json();
    let batch = format!("/v1/batches/{}", made["id"].as_str().unwrap());
    until("the reason", || {
        bench.get(&batch).json()["aerostat"]["paused"].as_str().is_some_and(|why| why.contains("damaged"))
    });
    bench.post(&format!("{batch}/cancel"), &json!({}));
    assert_eq!(bench.ended(made["id"].as_str().unwrap())["status"], "cancelled");
    assert_eq!(bench.delete(&format!("/v1/files/{id}")).status, 200);
}
