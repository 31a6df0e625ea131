use bytes::{Buf as _, Bytes};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use std::{future::poll_fn, pin::Pin, task::Poll};

use super::*;

const IDLE: Duration = Duration::from_secs(60);
const KIB: usize = 1024;

fn limits(answer_bytes: usize) -> RequestLimits {
    RequestLimits { answer_bytes, answer_idle: IDLE, ..RequestLimits::default() }
}

fn counts(answers: &Answers) -> (usize, u64, u64) {
    (answers.held_bytes(), answers.given_up(), answers.evicted())
}

fn piece(answer: &Arc<Waiting>, bytes: usize) -> piece::Piece {
    piece::Piece::new(vec![7; bytes].into(), answer)
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn counts_what_is_held_and_nothing_else() {
    let answers = Answers::default();
    let (one, other) = (answers.account(&limits(1 << 20)), answers.account(&limits(1 << 20)));
    let (first, second) = (one.answer(), other.answer());
    let mut pieces = vec![piece(&first, 10), piece(&first, 5), piece(&second, 7)];
    assert_eq!(counts(&answers), (22, 0, 0));
    // A part that was taken frees nothing; all of it does, whoever still has the rest of the piece.
    pieces[0].advance(9);
    assert_eq!(answers.held_bytes(), 22);
    pieces[0].advance(1);
    assert_eq!(answers.held_bytes(), 12);
    drop(pieces);
    let mut large = Bytes::from(vec![1; 40 * KIB]);
    let kept: Vec<Bytes> =
        std::iter::from_fn(|| (!large.is_empty()).then(|| first.keep(&mut large))).collect();
    assert_eq!((answers.held_bytes(), kept.len()), (40 * KIB, 3));
    drop(kept);
    assert_eq!(counts(&answers), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_which_nothing_is_taken_is_given_up_alone() {
    let answers = Answers::default();
    // A sum that was not looked at for long does not take a newcomer for an old one.
    seconds(1_000).await;
    let account = answers.account(&limits(usize::MAX));
    let (silent, slow, empty) = (account.answer(), account.answer(), account.answer());
    let _held = piece(&silent, 10);
    let mut taken = piece(&slow, 100);
    seconds(59).await;
    assert!(!silent.is_given_up());
    taken.advance(1);
    seconds(2).await;
    assert!(silent.is_given_up() && !slow.is_given_up() && !empty.is_given_up());
    assert_eq!(counts(&answers), (110, 1, 0));
    seconds(60).await;
    assert!(slow.is_given_up() && !empty.is_given_up());
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_socket_is_full_is_left_to_tcp() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let answers = Answers::default();
    let account = answers.account(&limits(usize::MAX));
    let (near, mut far) = tokio::io::duplex(16);
    let mut near = socket(near, &account);
    let answer = account.answer();
    let _held = piece(&answer, 10);
    let writing = tokio::spawn(async move { near.write_all(&[7; 32]).await });
    seconds(600).await;
    assert!(!answer.is_given_up());
    far.read_exact(&mut [0; 32]).await.unwrap();
    writing.await.unwrap().unwrap();
    // From here on it is the windows that it waits for.
    seconds(58).await;
    assert!(!answer.is_given_up());
    seconds(3).await;
    assert!(answer.is_given_up());
}

#[tokio::test(start_paused = true)]
async fn above_the_budget_the_longest_blocked_go_and_no_more_than_needed() {
    let answers = Answers::default();
    let account = answers.account(&limits(100));
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let answer = account.answer();
        waiting.push((piece(&answer, 10), answer));
        seconds(1).await;
    }
    assert_eq!(counts(&answers), (100, 0, 0));
    // One that takes a byte a second is as old as if it took none.
    let (trickle, _) = &mut waiting[2];
    trickle.advance(1);
    let newcomer = account.answer();
    let _held = piece(&newcomer, 25);
    seconds(2).await;
    let gone: Vec<bool> = waiting.iter().map(|(_, answer)| answer.is_given_up()).collect();
    assert_eq!(gone, [true, true, true, false, false, false, false, false, false, false]);
    assert!(!newcomer.is_given_up());
    assert_eq!((answers.given_up(), answers.evicted()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_nobody_goes() {
    let answers = Answers::default();
    let account = answers.account(&limits(usize::MAX));
    let held: Vec<_> = (0..100).map(|_| piece(&account.answer(), 1 << 20)).collect();
    seconds(50).await;
    assert_eq!(counts(&answers), (100 << 20, 0, 0));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_body_waits_for_room_unless_its_connection_holds_nothing() {
    let answers = Answers::default();
    let (full, fresh) = (answers.account(&limits(100)), answers.account(&limits(100)));
    let blocking = full.answer();
    let held = piece(&blocking, 100);
    let body = |account: &Arc<Account>| {
        Counted::new(Full::new(Bytes::from_static(b"hello")), account.answer(), false)
    };
    let mut modest = body(&fresh);
    assert!(modest.frame().await.unwrap().unwrap().is_data(), "it holds nothing");
    let mut waits = body(&full);
    let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut waits).poll_frame(cx).is_pending()));
    assert!(polled.await, "no room");
    let taking = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(held);
    });
    assert_eq!(waits.frame().await.unwrap().unwrap().into_data().unwrap().remaining(), 5);
    taking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_large_body_waits_until_all_is_taken() {
    let answers = Answers::default();
    let account = answers.account(&limits(usize::MAX));
    for (bytes, keeps, waits) in
        [(100 * KIB, true, true), (100 * KIB, false, false), (13, true, false)]
    {
        let full = Full::new(Bytes::from(vec![0; bytes]));
        let mut body = Counted::new(full, account.answer(), keeps);
        let held = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(body.is_end_stream(), !waits, "{bytes}");
        let taking = tokio::spawn(async move {
            seconds(5).await;
            drop(held);
        });
        let began = Instant::now();
        assert!(body.frame().await.is_none());
        assert_eq!(began.elapsed().as_secs() >= 5, waits, "{bytes}");
        taking.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_sends_any_more_ends_with_its_connection() {
    let answers = Answers::default();
    let account = answers.account(&limits(usize::MAX));
    let answer = account.answer();
    let _held = piece(&answer, 10);
    answer.let_go();
    let began = Instant::now();
    account.over().await;
    assert!(began.elapsed().abs_diff(IDLE) < Duration::from_millis(600));
}

#[tokio::test(start_paused = true)]
async fn dropped_the_task_of_an_answer_is_gone() {
    use hyper::rt::Executor as _;
    let answers = Answers::default();
    let account = answers.account(&limits(usize::MAX));
    let (streams, answer) = (Streams::default(), account.answer());
    let held = piece(&answer, 10);
    streams.next_is(&answer);
    streams.execute(async move {
        std::future::pending::<()>().await;
        drop(held);
    });
    seconds(62).await;
    assert_eq!(counts(&answers), (0, 1, 0));
    // Others run as they are.
    let (told, heard) = tokio::sync::oneshot::channel();
    streams.execute(async move {
        let _ = told.send(());
    });
    heard.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_looks_when_nobody_is_there() {
    let answers = Answers::default();
    for _ in 0..3 {
        let account = answers.account(&limits(usize::MAX));
        assert!(answers.0.auditing.load(Ordering::SeqCst));
        drop(account);
        seconds(2).await;
        assert!(!answers.0.auditing.load(Ordering::SeqCst));
    }
    assert!(answers.0.accounts.lock().unwrap().all.len() <= 3);
}
