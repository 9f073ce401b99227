//! Tests on a real Kubernetes control plane. One is shared by the whole run; every test has a namespace of its own.

mod schema;
mod world;
