//! Topic filters of MQTT: `sensors/+/reading`, `sensors/#` (OASIS MQTT 3.1.1, 4.7).

use super::pattern::{Pattern, TOPIC_BYTES_MAX};

/// Which topics are subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicFilter(String);

impl TopicFilter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(text: &str) -> Result<TopicFilter, String> {
        if text.is_empty() || text.len() > TOPIC_BYTES_MAX || text.contains('\0') {
            return Err(format!("a filter has 1 to {TOPIC_BYTES_MAX} bytes, none of them NUL"));
        }
        let levels: Vec<&str> = text.split('/').collect();
        for (nth, level) in levels.iter().enumerate() {
            let is_last = nth + 1 == levels.len();
            if level.contains('#') && !(*level == "#" && is_last) {
                return Err("`#` stands for all levels that follow, alone at the end".into());
            }
            if level.contains('+') && *level != "+" {
                return Err("`+` stands for one whole level".into());
            }
        }
        Ok(TopicFilter(text.to_owned()))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether a topic passes.
    pub(crate) fn passes(&self, topic: &str) -> bool {
        // What begins with `$` is the broker's own.
        if topic.starts_with('$') && !self.0.starts_with('$') {
            return false;
        }
        meet(&self.0, topic.split('/').map(Some))
    }
}

/// Whether a topic that the pattern makes could pass the filter: what is published would come back as a message then.
pub(crate) fn may_meet(filter: &TopicFilter, pattern: &Pattern) -> bool {
    let levels = pattern.levels();
    meet(&filter.0, levels.iter().map(Option::as_deref))
}

/// `None`: any text.
fn meet<'t>(filter: &str, mut levels: impl Iterator<Item = Option<&'t str>>) -> bool {
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            None => return false,
            Some(Some(level)) if wanted != "+" && wanted != level => return false,
            Some(_) => {}
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Of;
    use super::*;

    /// The examples of MQTT 3.1.1, 4.7.
    #[test]
    fn topics_pass_as_the_standard_says() {
        for (filter, topic, passes) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b", "a/B", false),
        ] {
            let filter = TopicFilter::parse(filter).expect(filter);
            assert_eq!(filter.passes(topic), passes, "{filter:?} {topic}");
        }
        for text in ["", "sport/tennis#", "sport/tennis/#/ranking", "sport+", "a/+b", "a\0"] {
            assert!(TopicFilter::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_circle_is_seen() {
        let meets = |filter, pattern| {
            let pattern = Pattern::parse(pattern, Of::Document).expect("a pattern");
            may_meet(&TopicFilter::parse(filter).expect("a filter"), &pattern)
        };
        assert!(meets("plant/+/reading", "plant/{sensor}/reading"));
        assert!(meets("plant/boiler/reading", "plant/{sensor}/reading"));
        assert!(meets("plant/#", "plant/x"));
        assert!(!meets("plant/+/set", "plant/{sensor}/reading"));
        assert!(!meets("plant/+", "plant/{sensor}/reading"));
    }
}
