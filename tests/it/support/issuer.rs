//! An issuer of access tokens inside the test: metadata over HTTP, keys, and valid and invalid tokens.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The audience of tokens.
pub const AUDIENCE: &str = "https://shop.example";

/// A key that signs tokens.
pub struct SigningKey {
    id: String,
    pair: KeyPair,
    algorithm: Algorithm,
}

impl SigningKey {
    /// ECDSA on the curve P-256.
    pub fn p256(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self { id: id.to_owned(), pair, algorithm: Algorithm::ES256 }
    }

    /// EdDSA on the curve Ed25519.
    pub fn ed25519(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Self { id: id.to_owned(), pair, algorithm: Algorithm::EdDSA }
    }

    /// Returns the public key as a JWK.
    pub fn jwk(&self) -> Value {
        let raw = self.pair.der_bytes();
        match self.algorithm {
            Algorithm::EdDSA => {
                json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.id, "x": encode(raw)})
            }
            _ => json!({
                "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
                "x": encode(&raw[1..33]), "y": encode(&raw[33..])
            }),
        }
    }

    /// Returns the public key as bytes, which an attacker has as well.
    pub fn public_bytes(&self) -> &[u8] {
        self.pair.der_bytes()
    }

    fn sign(&self, message: &str) -> String {
        let der = self.pair.serialize_der();
        let key = match self.algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_der(&der),
            _ => EncodingKey::from_ec_der(&der),
        };
        sign(message.as_bytes(), &key, self.algorithm).unwrap()
    }

    /// Returns a token with the default header and these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&self.header(), claims)
    }

    /// Returns the default header.
    pub fn header(&self) -> Value {
        let algorithm = if self.algorithm == Algorithm::EdDSA { "EdDSA" } else { "ES256" };
        json!({"alg": algorithm, "typ": "at+jwt", "kid": self.id})
    }

    /// Returns a token with this header, signed in any case.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        format!("{message}.{}", self.sign(&message))
    }
}

/// Returns a token signed with a shared secret.
pub fn hmac_token(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let signature = sign(message.as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// Returns a token without a signature.
pub fn unsigned_token(header: &Value, claims: &Value) -> String {
    format!("{}.", message(header, claims))
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the current time in seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The running issuer.
pub struct Issuer {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    keys: Mutex<Vec<Value>>,
    fetches: AtomicUsize,
    down: AtomicBool,
}

impl Issuer {
    /// Starts an issuer that publishes the public keys of `keys`.
    pub async fn start(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let server = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(answer(stream, address, Arc::clone(&shared)));
                }
            }
        });
        let issuer = Self { address, shared, server };
        issuer.publish(keys);
        issuer
    }

    /// Publishes only these keys from now on.
    pub fn publish(&self, keys: &[&SigningKey]) {
        *self.shared.keys.lock().unwrap() = keys.iter().map(|key| key.jwk()).collect();
    }

    /// Publishes only these JWKs, unchanged, from now on.
    pub fn publish_raw(&self, keys: Vec<Value>) {
        *self.shared.keys.lock().unwrap() = keys;
    }

    /// Sets whether every response is a failure.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// Returns how often the keys were fetched.
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// Returns the issuer's identifier.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns valid claims for `subject` with `scope`.
    pub fn claims(&self, subject: &str, scope: &str) -> Value {
        let now = now();
        json!({
            "iss": self.url(), "aud": AUDIENCE, "sub": subject, "scope": scope, "client_id": "test", "jti": "1",
            "iat": now, "exp": now + 600
        })
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(mut stream: TcpStream, address: SocketAddr, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
    let base = format!("http://{address}");
    let body = match path.as_str() {
        _ if shared.down.load(Ordering::SeqCst) => {
            if path == "/keys" {
                shared.fetches.fetch_add(1, Ordering::SeqCst);
            }
            None
        }
        "/.well-known/openid-configuration" => Some(json!({"issuer": base, "jwks_uri": format!("{base}/keys")})),
        "/keys" => {
            shared.fetches.fetch_add(1, Ordering::SeqCst);
            Some(json!({"keys": *shared.keys.lock().unwrap()}))
        }
        _ => None,
    };
    let (status, body) = match body {
        Some(body) => ("200 OK", body.to_string()),
        None => ("503 Service Unavailable", String::new()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}
