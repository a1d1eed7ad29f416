//! The user database that an agent sees: the host's, in which its own user lives where HOME says. Programs that ask the database
//! (`~`, getent(1), Java's `user.home`) and programs that ask the variable then find the same place.

use std::path::Path;

/// The file name, in the folder of the agent's sockets; it is shown at /etc/passwd.
pub(crate) use toka_sandbox::plan::PASSWD as FILE;

/// The field of a line that holds the home, from 0 (passwd(5)).
const HOME: usize = 5;

/// Whose home it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub uid: u32,
    pub gid: u32,
    /// What a user is called that the database does not know.
    pub name: &'a str,
    pub home: &'a Path,
}

/// The database `text` with the owner's home; `None` where the home cannot stand in it.
pub(crate) fn with_home(text: &str, owner: Owner<'_>) -> Option<String> {
    let home = owner.home.to_str().filter(|home| !home.contains([':', '\n']))?;
    let uid = owner.uid.to_string();
    let mut is_known = false;
    let mut out = String::with_capacity(text.len() + home.len());
    for line in text.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.len() > HOME && fields[2] == uid {
            fields[HOME] = home;
            is_known = true;
        }
        out.push_str(&fields.join(":"));
        out.push('\n');
    }
    if !is_known && !owner.name.contains([':', '\n']) {
        let Owner { gid, name, .. } = owner;
        out.push_str(&format!("{name}:x:{uid}:{gid}::{home}:/bin/sh\n"));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000:Ada,,,:/home/ada:/bin/zsh\n+nis\n";

    fn shown(uid: u32, home: &str) -> Option<String> {
        with_home(HOST, Owner { uid, gid: 7, name: "web", home: Path::new(home) })
    }

    #[test]
    fn its_own_user_lives_where_home_says_and_all_others_where_they_did() {
        let text = shown(1000, "/state/home").expect("a database");
        assert_eq!(text, HOST.replace("/home/ada", "/state/home"));
        let text = shown(61_200, "/state/home").expect("a database");
        assert_eq!(text, format!("{HOST}web:x:61200:7::/state/home:/bin/sh\n"));
        assert_eq!(shown(0, "/a:b"), None, "it would be two fields");
    }
}
