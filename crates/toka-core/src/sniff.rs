//! Telling a workstream from other YAML by a glance at its text, so that files of other tools are left alone. Whether it is a
//! valid workstream is not decided here.

/// Bytes of a file that are looked at.
pub const SNIFF_BYTES: u64 = 64 * 1024;

/// Whether a text has the two sections that only workstreams have together, and is no manifest of another tool. Quoted keys,
/// keys that are all indented alike and maps in flow style (JSON) count: the loader takes them, too.
pub fn looks_like_a_workstream(text: &[u8]) -> bool {
    let keys = TopLevel::of(text);
    keys.has(b"metadata") && (keys.has(b"spec") || keys.has(b"tasks")) && !keys.is_foreign()
}

/// What stands at the top level of a text, as far as a glance tells.
enum TopLevel<'t> {
    /// The keys of maps in block style.
    Block(Vec<&'t [u8]>),
    /// All of a text that begins with a map in flow style.
    Flow(&'t [u8]),
}

impl<'t> TopLevel<'t> {
    fn of(text: &'t [u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let (mut keys, mut indent) = (Vec::new(), None);
        for line in text.split(|byte| *byte == b'\n') {
            let content = line.trim_ascii();
            if content.starts_with(b"---") {
                indent = None;
            }
            let content = content.strip_prefix(b"---").map_or(content, <[u8]>::trim_ascii_start);
            if content.is_empty() || content.starts_with(b"#") || content.starts_with(b"%") {
                continue;
            }
            if indent.is_none() && content.starts_with(b"{") {
                return Self::Flow(text);
            }
            let here = line.iter().take_while(|byte| **byte == b' ').count();
            if *indent.get_or_insert(here) == here
                && let Some(key) = content.split(|byte| *byte == b':').next()
            {
                keys.push(unquoted(key));
            }
        }
        Self::Block(keys)
    }

    fn has(&self, wanted: &[u8]) -> bool {
        match self {
            // A key that is written with escapes may be any.
            Self::Block(keys) => keys.iter().any(|key| *key == wanted || key.contains(&b'\\')),
            Self::Flow(text) => {
                text.windows(wanted.len()).any(|part| part == wanted) || text.contains(&b'\\')
            }
        }
    }

    /// Whether it says that it belongs to another tool, as manifests of Kubernetes do.
    fn is_foreign(&self) -> bool {
        let names: [&[u8]; 2] = [b"apiVersion", b"kind"];
        match self {
            Self::Block(keys) => names.iter().any(|name| keys.contains(name)),
            Self::Flow(text) => text.windows(names[0].len()).any(|part| part == names[0]),
        }
    }
}

fn unquoted(key: &[u8]) -> &[u8] {
    let key = key.trim_ascii();
    let quoted = |quote: u8| key.strip_prefix(&[quote])?.strip_suffix(&[quote]);
    quoted(b'"').or_else(|| quoted(b'\'')).unwrap_or(key)
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
            (" metadata: x\n spec: y\n", true),
            ("x:\n  metadata: y\n  spec: z\n", false),
            ("\"metadata\": {name: a}\n'spec': {}\n", true),
            ("\"metad\\u0061ta\": {name: a}\nspec: {}\n", true),
            ("# ours\n---\n{\"metadata\": {\"name\": \"a\"}, \"spec\": {}}\n", true),
            ("--- {metadata: {name: a}, tasks: {}}\n", true),
            ("{\"apiVersion\": \"v1\", \"metadata\": {}, \"spec\": {}}\n", false),
            ("{\"name\": \"a package\"}\n", false),
            ("\u{feff}metadata: {name: a}\nspec: {}\n", true),
            ("services: {}\n---\n  metadata: x\n  spec: y\n", true),
        ] {
            assert_eq!(looks_like_a_workstream(text.as_bytes()), expected, "{text}");
        }
    }
}
