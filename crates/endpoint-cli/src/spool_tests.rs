//! Tests of the queues: readers that stall, go away, come back, and a full disk.

use std::{io::Read, os::fd::OwnedFd, sync::mpsc};

use super::*;

fn told(lines: u64) -> Vec<u8> {
    format!("{lines} lost\n").into_bytes()
}

fn pipe() -> (std::fs::File, Spool) {
    let (read, write) = io::pipe().unwrap();
    let spool = Spool::start("test", Descriptor::Other(OwnedFd::from(write)), told).unwrap();
    (std::fs::File::from(OwnedFd::from(read)), spool)
}

fn line(number: usize) -> Vec<u8> {
    format!("{number:0>99}\n").into_bytes()
}

/// Puts lines until some are lost, as nobody reads; gives how many were put.
fn fill(spool: &Spool) -> usize {
    (0..100_000)
        .find(|number| {
            spool.put(line(*number));
            spool.lost() >= 10
        })
        .map(|last| last + 1)
        .unwrap()
}

fn read_lines(mut reader: std::fs::File, until: &str) -> Vec<String> {
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&text).contains(until) {
        let count = reader.read(&mut chunk).unwrap();
        text.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn waits_for_nobody_and_tells_what_was_lost_once_somebody_reads() {
    let (reader, spool) = pipe();
    let put = fill(&spool);
    assert!(put > 10_000, "{put}");
    let lines = read_lines(reader, "lost");
    let (loss, kept) = lines.split_last().unwrap();
    assert_eq!(*loss, format!("{} lost", spool.lost()));
    assert_eq!(kept.len() as u64 + spool.lost(), put as u64);
    for (number, kept) in kept.iter().enumerate() {
        assert_eq!(*kept, format!("{number:0>99}"));
    }
}

#[test]
fn a_writer_without_a_queue_waits() {
    // The weakened twin: the same lines written at once.
    let (_reader, write) = io::pipe().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for number in 0..2000 {
            let line = line(number);
            let _ = rustix::io::write(&write, &line);
        }
        let _ = tell.send(());
    });
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
}

#[test]
fn the_next_line_comes_after_the_one_that_tells_of_losses() {
    let (reader, spool) = pipe();
    fill(&spool);
    let next = thread::spawn(move || read_lines(reader, "a line\n"));
    while spool.0.lock().bytes > QUEUE_BYTES / 2 {
        thread::sleep(Duration::from_millis(1));
    }
    spool.put(b"a line\n".to_vec());
    let lines = next.join().unwrap();
    let [.., loss, last] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(last, "a line");
    assert!(loss.ends_with(" lost"), "{loss}");
}

#[test]
fn flushing_ends_soon_where_nobody_reads_and_waits_where_somebody_does() {
    let (_reader, spool) = pipe();
    fill(&spool);
    let began = Instant::now();
    spool.flush();
    assert!(began.elapsed() < FLUSH, "{:?}", began.elapsed());

    let (reader, spool) = pipe();
    (0..1000).for_each(|number| {
        spool.put(line(number));
    });
    let read = thread::spawn(move || read_lines(reader, &format!("{:0>99}", 999)));
    spool.flush();
    assert_eq!(read.join().unwrap().len(), 1000);
}

#[test]
fn a_stream_that_takes_nothing_is_an_error_for_results_and_a_loss_for_lines() {
    let full = || OwnedFd::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let spool = Spool::start("test", Descriptor::Other(full()), told).unwrap();
    let error = spool.put_result(line(0)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let last = (1..10).fold(None, |_, number| Some(spool.put(line(number)))).unwrap();
    while spool.0.lock().done < last {
        thread::sleep(Duration::from_millis(1));
    }
    // Lines that tell of losses are lost too, and are not counted as lines.
    assert_eq!((spool.lost(), spool.0.lock().untold), (10, 10));

    let (reader, spool) = pipe();
    drop(reader);
    spool.put_result(line(0)).unwrap();
}

#[test]
fn a_result_that_nobody_reads_is_waited_for_a_moment_only() {
    let (_reader, spool) = pipe();
    fill(&spool);
    let began = Instant::now();
    spool.put_result(line(0)).unwrap();
    assert!(began.elapsed() < 4 * RESULT, "{:?}", began.elapsed());
}
