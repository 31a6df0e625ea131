//! When is a challenge's answer taken back?
//!
//! When its order has ended: well, badly, or because whoever waited for it went away.
//!
//! Always true: no token is published that could be anything but one segment of a path.

use std::sync::Arc;

use super::{
    issuer::{Answer, Answers, IssueError},
    problem::{Step, unavailable},
};

/// An answer that is given from now on; taken back at the latest when this is dropped.
pub(super) struct Published {
    answers: Arc<dyn Answers>,
    answer: Option<Answer>,
}

impl Published {
    pub(super) async fn new(
        answers: &Arc<dyn Answers>,
        answer: Answer,
    ) -> Result<Self, IssueError> {
        if !is_token(&answer.token) {
            let why = "the challenge's token is no base64url text";
            return Err(unavailable(Step::Authorization, why));
        }
        // Before it is published: half a publication is taken back too.
        let published = Self { answers: Arc::clone(answers), answer: Some(answer.clone()) };
        match published.answers.publish(answer).await {
            Ok(()) => Ok(published),
            Err(why) => {
                published.withdraw().await;
                Err(why)
            }
        }
    }

    pub(super) async fn withdraw(mut self) {
        if let Some(answer) = self.answer.clone() {
            self.answers.withdraw(answer).await;
            self.answer = None;
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let answers = Arc::clone(&self.answers);
        // Without a runtime the process ends, and with it what is in memory; the rest expires.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { answers.withdraw(answer).await });
        }
    }
}

/// Whether an authority's token has the form that it must have (RFC 8555 §8.3), and a sane length.
fn is_token(text: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=TOKEN_CHARS).contains(&text.len()) && text.bytes().all(may_stand)
}

const TOKEN_CHARS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_harmless_segment() {
        assert!(is_token("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA"));
        let long = "a".repeat(257);
        for bad in ["", "..", "../../etc", "a/b", "a b", "a=", "a%2f", "ä", "a\0", &long] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
