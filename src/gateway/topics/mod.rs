//! Topics of MQTT, their filters and patterns, and where a broker is: what a configuration says, and what is done with it.

mod broker;
mod filter;
mod pattern;

pub(crate) use self::broker::BrokerAddress;
pub(crate) use self::filter::{TopicFilter, may_meet};
pub(crate) use self::pattern::{Name, Of, Pattern, TOPIC_BYTES_MAX, one_level, text_at, value_at};
