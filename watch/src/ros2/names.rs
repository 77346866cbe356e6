//! Names that ROS 2 accepts: <https://design.ros2.org/articles/topic_and_service_names.html>.

/// The longest name of a topic, with its slashes: 255, less the prefix and suffix that ROS may add.
const TOPIC_BYTES_MAX: usize = 247;

/// True for a part of a name: letters, digits and single underscores, no digit at the beginning.
pub(crate) fn is_token(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && !text.contains("__")
        && text.len() <= TOPIC_BYTES_MAX
}

/// True for a topic's whole name, such as `/camera/image_raw`.
pub(crate) fn is_topic(text: &str) -> bool {
    let parts = text.strip_prefix('/').map(|rest| rest.split('/'));
    text.len() <= TOPIC_BYTES_MAX && parts.is_some_and(|mut parts| parts.all(is_token))
}

/// Parts of names made of any text, each given once.
///
/// What ROS does not allow becomes an underscore. A part that would be empty, begin with a digit, or begin with an
/// underscore (which hides it from `ros2 topic list`) begins with what it names.
#[cfg(feature = "ros2")]
#[derive(Debug, Default)]
pub(crate) struct Names(std::collections::HashSet<String>);

#[cfg(feature = "ros2")]
impl Names {
    /// Bytes of a part, so that three of them and a namespace stay below the limit.
    const PART_BYTES_MAX: usize = 60;

    /// A part for `name`, which is a `kind` such as `camera`.
    pub fn part(&mut self, kind: &str, name: &str) -> String {
        let mut plain = String::new();
        for c in name.chars() {
            let c = if c.is_ascii_alphanumeric() { c } else { '_' };
            if c != '_' || !plain.ends_with('_') {
                plain.push(c);
            }
        }
        plain.truncate(Self::PART_BYTES_MAX);
        let plain = plain.trim_matches('_');
        let part = match plain.chars().next() {
            None => kind.to_owned(),
            Some(first) if first.is_ascii_digit() => format!("{kind}_{plain}"),
            Some(_) => plain.to_owned(),
        };
        let mut free = part.clone();
        let mut number = 2;
        while !self.0.insert(free.clone()) {
            free = format!("{part}_{number}");
            number += 1;
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_what_ros_calls_so() {
        for good in ["/a", "/camera/image_raw", "/cam0/_hidden/compressed"] {
            assert!(is_topic(good), "{good}");
        }
        let long = format!("/{}", "a".repeat(TOPIC_BYTES_MAX));
        for bad in ["", "/", "a", "a/b", "/a/", "//a", "/a b", "/1a", "/a__b", "/é", "/~/a", &long] {
            assert!(!is_topic(bad), "{bad}");
        }
    }

    #[cfg(feature = "ros2")]
    #[test]
    fn any_text_becomes_a_name_of_its_own() {
        let mut names = Names::default();
        for (name, part) in [
            ("door", "door"),
            ("Hof & Tor", "Hof_Tor"),
            ("hof-tor", "hof_tor"),
            ("hof tor", "hof_tor_2"),
            ("hof_tor_2", "hof_tor_2_2"),
            ("2nd floor", "camera_2nd_floor"),
            ("_x__y_", "x_y"),
            ("门", "camera"),
            ("", "camera_2"),
        ] {
            assert_eq!(names.part("camera", name), part, "{name}");
            assert!(is_token(part));
        }
        let long = names.part("camera", &"7é".repeat(200));
        assert!(is_token(&long) && long.len() < 80, "{long}");
    }
}
