//! `random`: bytes from the secure source of the operating system. It is the only randomness of a handler.

use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};

use super::CallState;
use super::call::Function;
use super::stop::Stop;
use switchboard_contract::random;
use switchboard_core::limits;

#[derive(Serialize)]
struct Args {
    len: u32,
}

/// Random bytes. The field's name makes a recording show them in hex.
#[derive(Serialize, Deserialize)]
pub(super) struct Drawn {
    pub random: Vec<u8>,
}

impl random::Host for CallState {
    async fn bytes(&mut self, len: u32) -> wasmtime::Result<Vec<u8>> {
        if len > limits::RANDOM_BYTES_MAX {
            let rule = format!("random.bytes gives at most {} bytes, not {len}", limits::RANDOM_BYTES_MAX);
            return Err(Stop::Broke(rule).into());
        }
        let live = async { draw(len as usize) };
        Ok(self.middleware.call(Function::RandomBytes, &Args { len }, live).await?.random)
    }
}

pub(super) fn draw(len: usize) -> Drawn {
    let mut random = vec![0; len];
    // On Linux this cannot fail after the machine has booted. To continue with zeros would be worse than to
    // end here.
    OsRng.try_fill_bytes(&mut random).expect("the operating system gives random bytes");
    Drawn { random }
}
