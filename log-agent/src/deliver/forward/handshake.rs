//! The handshake of Forward receivers that ask who is there: both sides prove that they know a key without saying it.
//!
//! HELO (a nonce, and a salt for the user's password) → PING (our name, our salt, a digest over salt, name, nonce and key; the user and a
//! digest over his password) → PONG (the receiver's name, and the same digest with it).

use rmpv::Value;
use rustls::crypto::ring::default_provider;
use sha2::{Digest as _, Sha512};

use super::super::attempt::DeliveryError;
use super::connection::{Connection, field};
use crate::record::encode::msgpack;

/// Longer names are cut, so that a PING fits into what receivers read of one.
const LONGEST_NAME: usize = 253;

/// What the agent calls itself to a receiver.
///
/// SECURITY: the digests of both sides differ by the name in them and by nothing else. So a PONG with our own name is our own digest that
/// comes back, and is refused; and the name has a random end, so that no honest receiver has it, not even one in the same Pod.
#[derive(Debug, Clone)]
pub(super) struct Name(String);

impl Name {
    /// A unique one.
    pub(super) fn new() -> Self {
        let mut pod = std::env::var("POD_NAME").unwrap_or_else(|_| "log-agent".to_owned());
        while pod.len() > LONGEST_NAME {
            pod.pop();
        }
        Self(format!("{pod}-{:016x}", u64::from_be_bytes(random())))
    }
}

/// Introduces this agent, and lets the receiver prove that it is the right one.
pub(super) async fn introduce(
    connection: &mut Connection,
    name: &Name,
    key: &[u8],
    user: Option<(&str, &[u8])>,
) -> Result<(), DeliveryError> {
    let helo = connection.receive().await?;
    if helo[0].as_slice() != Some(b"HELO") {
        return Err(DeliveryError::retry(
            "it does not begin a handshake, although a shared key is configured; it needs a shared_key, or --forward-shared-key-file has to go",
        ));
    }
    let option = |name| field(&helo[1], name).unwrap_or_default();
    let (nonce, auth) = (option("nonce").to_vec(), option("auth"));
    // New for each connection. A string, as receivers want it, so hexadecimal digits.
    let salt = format!("{:032x}", u128::from_be_bytes(random()));
    // Receivers send a salt whether or not they have users; one without does not look at what it gets. Where there is no salt, there is no
    // user to name.
    let (user, password) = user.filter(|_| !auth.is_empty()).unwrap_or_default();
    let password = if auth.is_empty() { String::new() } else { digest(&[auth, user.as_bytes(), password]) };
    if helo[1]["keepalive"] == Value::Boolean(false) {
        connection.use_once();
    }
    let mut ping = Vec::new();
    msgpack::small_array(6, &mut ping);
    let proof = digest(&[salt.as_bytes(), name.0.as_bytes(), &nonce, key]);
    for text in ["PING", &name.0, &salt, &proof, user, &password] {
        msgpack::string(text.as_bytes(), &mut ping);
    }
    connection.write(&ping).await?;
    connection.flush().await?;
    let reply = connection.receive().await?;
    let text = |at: usize| reply[at].as_slice().unwrap_or_default();
    if text(0) != b"PONG" || reply[1] != Value::Boolean(true) {
        let reason = String::from_utf8_lossy(text(2)).into_owned();
        return Err(DeliveryError::retry(format!("it refuses the handshake: {reason}")));
    }
    if text(3) == name.0.as_bytes() {
        return Err(DeliveryError::retry(
            "it gives our own name back, which is a reflection and no proof that it knows the shared key",
        ));
    }
    if text(4) != digest(&[salt.as_bytes(), text(3), &nonce, key]).as_bytes() {
        // SECURITY: lines are not given to a receiver that cannot prove that it knows the key.
        return Err(DeliveryError::retry("it does not know the shared key itself"));
    }
    Ok(())
}

/// SHA-512 over the parts one after the other, in hexadecimal digits.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

/// Unpredictable bytes.
fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    default_provider().secure_random.fill(&mut bytes).expect("Linux has random bytes from 5.6 on");
    bytes
}
