//! Telling a workstream from other YAML by a glance at its text, so that files of other tools are left alone. Whether it is a
//! valid workstream is not decided here.

/// Bytes of a file that are looked at.
pub const SNIFF_BYTES: u64 = 64 * 1024;

/// Whether a text has the two sections that only workstreams have together, and is no manifest of another tool.
pub fn looks_like_a_workstream(text: &[u8]) -> bool {
    let lines = text.split(|byte| *byte == b'\n');
    let keys: Vec<&[u8]> = lines
        .filter(|line| line.first().is_some_and(u8::is_ascii_alphabetic))
        .filter_map(|line| line.split(|byte| *byte == b':').next())
        .collect();
    let has = |key: &[u8]| keys.contains(&key);
    has(b"metadata") && (has(b"spec") || has(b"tasks")) && !has(b"apiVersion") && !has(b"kind")
}

/// Whether a file of this name may be one.
pub fn is_yaml_name(name: &[u8]) -> bool {
    name.ends_with(b".yaml") || name.ends_with(b".yml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workstreams_and_others() {
        for (text, expected) in [
            ("metadata: {name: a}\ntasks:\n  default: []\n", true),
            ("metadata: {name: a}\nspec: {}\n", true),
            ("metadata: {name: a}\n", false),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {}\n", false),
            ("services: {}\n", false),
            (" metadata: x\n spec: y\n", false),
        ] {
            assert_eq!(looks_like_a_workstream(text.as_bytes()), expected, "{text}");
        }
    }
}
