//! Runner `attach`: somebody else starts the service, and nobody here can stop it.
//!
//! What makes it a new instance is the next load. Whether it is still the one that was loaded, its answers tell, or the
//! connections that were open at the load: see [`crate::service`].

use async_trait::async_trait;

use super::{Instance, Place, RunError, Runner};

/// Takes the service as it is.
pub struct AttachRunner {
    place: Place,
}

impl AttachRunner {
    /// The service at `HOST:PORT` or `unix:PATH`; programs that save and load it are started with `launcher` before them.
    #[must_use]
    pub fn new(launcher: Vec<String>, address: &str) -> AttachRunner {
        AttachRunner { place: Place { attached: true, launcher, ..Place::at(address) } }
    }
}

#[async_trait]
impl Runner for AttachRunner {
    async fn start(&self) -> Result<Box<dyn Instance>, RunError> {
        Ok(Box::new(Attached { place: self.place.clone() }))
    }
}

struct Attached {
    place: Place,
}

#[async_trait]
impl Instance for Attached {
    fn address(&self) -> &str {
        &self.place.address
    }

    fn is_alive(&mut self) -> bool {
        true
    }

    async fn stop(&mut self) {}

    fn place(&self) -> Place {
        self.place.clone()
    }
}
