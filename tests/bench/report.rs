//! How is a figure written down? One JSON object a line.

use serde_json::{Map, Value, json};

/// Something that figures are of.
pub trait Named: Copy {
    fn name(self) -> &'static str;
    /// Whether it is compared with the others.
    fn is_ours(self) -> bool;
}

/// One figure of one subject.
pub struct Figure {
    pub figure: String,
    pub subject: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// This value divided by the peer's.
    pub ratio_to: Vec<(&'static str, f64)>,
    /// Rounds of which `value` is the median.
    pub rounds: usize,
    /// Units of work in a round.
    pub runs: usize,
}

impl Figure {
    /// Prints every subject's median; ours with its ratios to the others: the median of the ratios
    /// round by round, because what disturbs a round disturbs all its turns.
    pub fn all<S: Named>(figure: &str, unit: &'static str, runs: usize, rounds: &[(S, Vec<f64>)]) {
        for (subject, values) in rounds {
            let peers = rounds.iter().filter(|(peer, _)| subject.is_ours() && !peer.is_ours());
            let ratio = |others: &[f64]| {
                median(
                    &values
                        .iter()
                        .zip(others)
                        .map(|(ours, other)| ours / other)
                        .collect::<Vec<_>>(),
                )
            };
            let ratio_to = peers.map(|(peer, others)| (peer.name(), ratio(others))).collect();
            let (value, subject, rounds) = (median(values), subject.name(), values.len());
            let figure = figure.to_owned();
            Self { figure, subject, value, unit, ratio_to, rounds, runs }.print();
        }
    }

    pub fn print(&self) {
        let ratios: Map<String, Value> = self
            .ratio_to
            .iter()
            .map(|(peer, ratio)| ((*peer).to_owned(), rounded(*ratio, 1000.0)))
            .collect();
        let line = json!({
            "figure": self.figure,
            "subject": self.subject,
            "value": rounded(self.value, 10.0),
            "unit": self.unit,
            "ratio_to": ratios,
            "runs": self.runs,
            "median_of": self.rounds,
        });
        println!("{line}");
    }
}

fn rounded(value: f64, parts: f64) -> Value {
    json!((value * parts).round() / parts)
}

/// The middle value; of an even number of them the upper middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
