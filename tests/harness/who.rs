//! Who comes, and how do they shake hands? The identities of the authorisation matrices; what each may is
//! the oracle's affair, which stands beside its test.

use crate::{
    node,
    weak::Form,
    wire::{Client, Shown},
};

/// An identity, and what becomes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Who {
    /// Shows nothing.
    None,
    /// A key that no line names.
    Unknown,
    /// A key with the scope `ops`.
    Authorised,
    /// A key with another scope.
    OtherScope,
    /// Its `expires` has passed before it connects.
    Expired,
    /// Its `expires` passes while it is connected.
    ExpiresLive,
    /// Its `from` holds other addresses.
    WrongFrom,
    /// Its `from` holds the address it starts from and not the one it moves to.
    Migrates,
    /// Taken out of the list before it connects.
    RevokedBefore,
    /// Taken out of the list while it is connected.
    RevokedDuring,
    /// Shows the authorised key and signs with another.
    Stolen,
}

/// All of them.
pub const WHO: [Who; 11] = [
    Who::None,
    Who::Unknown,
    Who::Authorised,
    Who::OtherScope,
    Who::Expired,
    Who::ExpiresLive,
    Who::WrongFrom,
    Who::Migrates,
    Who::RevokedBefore,
    Who::RevokedDuring,
    Who::Stolen,
];

/// How a client shakes hands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// Without a ticket.
    Full,
    /// With the ticket of an earlier connection to this server, made at a time when the key was good.
    Ticket,
    /// With early data sent under a ticket that allows it, which the endpoint never gives: it comes from
    /// a server of the same key that does.
    Early,
}

/// All three.
pub const HOW: [How; 3] = [How::Full, How::Ticket, How::Early];

/// Seed of the key that the lines name.
const KEY: u8 = 2;
/// Seed of one that they do not.
const STRANGER: u8 = 9;

impl Who {
    /// Their line in `authorized_peers`.
    #[must_use]
    pub fn lines(self) -> String {
        let key = node::identity(KEY).fingerprint();
        let options = match self {
            Self::None | Self::Unknown | Self::Authorised | Self::Stolen => "",
            Self::RevokedBefore | Self::RevokedDuring => "",
            Self::OtherScope => return format!("scope=\"lab\" {key}\n"),
            Self::Expired | Self::ExpiresLive => ",expires=\"2026-06-01T12:01:00Z\"",
            Self::WrongFrom => ",from=\"10.0.0.0/8,2001:db8::/32\"",
            Self::Migrates => ",from=\"127.0.0.1/32\"",
        };
        format!("scope=\"ops\"{options} {key}\n")
    }

    /// Their client, which offers these protocols.
    #[must_use]
    pub fn client(self, form: Form, protocols: &[&[u8]], how: How) -> Client {
        let seed = if self == Self::Unknown { STRANGER } else { KEY };
        let shown = match form {
            Form::Raw => Shown::raw(seed),
            Form::X509 => Shown::x509(seed),
        };
        let mut client = Client::new(protocols);
        match self {
            Self::None => {}
            Self::Stolen => client = client.showing(shown.signed_by(STRANGER)),
            _ => client = client.showing(shown),
        }
        if form == Form::X509 {
            client = client.wants_x509();
        }
        if how != How::Full {
            client = client.resuming();
        }
        client
    }
}
