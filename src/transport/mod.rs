//! What carries packets or bytes between peers, each as a connection that the message endpoint can use.

pub mod sim;
