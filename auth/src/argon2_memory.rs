//! Argon2id (RFC 9106) in memory that is kept and used again.
//!
//! A hash fills some 19 MiB. Left to the allocator, each thread that ever hashed keeps a multiple of
//! that for good; here it is as many pieces as hashes may run at once.

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use parking_lot::Mutex;

use crate::problem::Problem;
use crate::random;
use crate::secret::Secret;
use crate::store::users::PasswordHash;

/// Hashes with given parameters, in kept memory.
#[derive(Debug)]
pub(crate) struct Hasher {
    params: Params,
    /// Pieces that no hash is using now.
    kept: Mutex<Vec<Vec<Block>>>,
}

impl Hasher {
    /// `params` are those of new hashes.
    pub fn new(params: Params) -> Self {
        Self {
            params,
            kept: Mutex::default(),
        }
    }

    /// A new hash with a new salt, as a PHC string.
    pub fn hash(&self, password: &Secret) -> Result<PasswordHash, Problem> {
        let failed = |error: &dyn std::fmt::Display| Problem::internal("hashing a password", error);
        let salt: [u8; 16] = random::bytes();
        let hash = phc::PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: (&self.params).try_into().map_err(|error| failed(&error))?,
            salt: Some(phc::Salt::new(&salt).map_err(|error| failed(&error))?),
            hash: Some(self.output(Version::V0x13, &self.params, password, &salt)?),
        };
        Ok(PasswordHash(hash.to_string()))
    }

    /// Whether the password is the hash's, and whether the hash is weaker than a new one would be.
    /// The comparison takes the same time wherever the two differ.
    pub fn verify(&self, password: &Secret, hash: &PasswordHash) -> Result<Option<Weak>, Problem> {
        let broken = |error: &dyn std::fmt::Display| Problem::internal("reading a password hash", error);
        let parsed = phc::PasswordHash::new(&hash.0).map_err(|error| broken(&error))?;
        let (Some(salt), Some(stored)) = (&parsed.salt, &parsed.hash) else {
            return Err(broken(&"it has no salt or no output"));
        };
        if parsed.algorithm != Algorithm::Argon2id.ident() {
            return Err(broken(&"it is not Argon2id"));
        }
        let version = parsed.version.unwrap_or(Version::V0x13.into());
        let version = Version::try_from(version).map_err(|error| broken(&error))?;
        let used = Params::try_from(&parsed).map_err(|error| broken(&error))?;
        let output = self.output(version, &used, password, salt.as_ref())?;
        let weak = used.m_cost() < self.params.m_cost() || used.t_cost() < self.params.t_cost();
        Ok((output == *stored).then_some(Weak(weak)))
    }

    fn output(
        &self,
        version: Version,
        params: &Params,
        password: &Secret,
        salt: &[u8],
    ) -> Result<phc::Output, Problem> {
        let failed = |error: &dyn std::fmt::Display| Problem::internal("hashing a password", error);
        let argon2 = Argon2::new(Algorithm::Argon2id, version, params.clone());
        let mut output = vec![0; params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
        let mut memory = self.kept.lock().pop().unwrap_or_default();
        memory.resize(params.block_count(), Block::default());
        let done = argon2.hash_password_into_with_memory(
            password.expose().as_bytes(),
            salt,
            &mut output,
            &mut memory[..],
        );
        self.kept.lock().push(memory);
        done.map_err(|error| failed(&error))?;
        phc::Output::new(&output).map_err(|error| failed(&error))
    }
}

/// Whether a hash that fits should be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weak(pub bool);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_for_as_many_as_ran_at_once() {
        let hasher = Hasher::new(Params::new(64, 1, 1, None).unwrap());
        let hash = hasher.hash(&Secret::new("correct horse")).unwrap();
        for _ in 0..10 {
            assert_eq!(
                hasher.verify(&Secret::new("correct horse"), &hash).unwrap(),
                Some(Weak(false))
            );
            assert_eq!(hasher.verify(&Secret::new("wrong horse"), &hash).unwrap(), None);
        }
        let kept = hasher.kept.lock();
        assert_eq!(kept.iter().map(Vec::len).collect::<Vec<_>>(), [64]);
    }

    #[test]
    fn the_library_agrees() {
        use argon2::PasswordVerifier;
        let hasher = Hasher::new(Params::new(64, 2, 1, None).unwrap());
        let hash = hasher.hash(&Secret::new("correct horse")).unwrap();
        let parsed = phc::PasswordHash::new(&hash.0).unwrap();
        Argon2::default()
            .verify_password(b"correct horse", &parsed)
            .unwrap();
        Argon2::default()
            .verify_password(b"wrong horse", &parsed)
            .unwrap_err();
    }

    #[test]
    fn what_is_no_hash_of_ours_is_an_error_and_not_an_answer() {
        let hasher = Hasher::new(Params::new(64, 1, 1, None).unwrap());
        for hash in [
            "",
            "plain",
            "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=64,t=1,p=1",
        ] {
            assert!(
                hasher
                    .verify(&Secret::new("x"), &PasswordHash(hash.to_owned()))
                    .is_err(),
                "{hash}"
            );
        }
    }
}
