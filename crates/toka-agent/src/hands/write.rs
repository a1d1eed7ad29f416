//! `write`: the whole of a file.

use toka_core::tool::WriteFile;

use super::Done;
use super::place::{ToolError, change, path_of, put, text_of};

pub(super) fn write(arguments: &WriteFile) -> Result<Done, ToolError> {
    let path = path_of(&arguments.path)?;
    let is_new = !path.exists();
    // What was there only says how much is another: it need not be a text.
    let before = if is_new { String::new() } else { text_of(&path).unwrap_or_default() };
    put(&path, &arguments.content)?;
    let lines = arguments.content.lines().count();
    let done = if is_new { "made" } else { "written" };
    let text = format!("{} is {done}: {lines} lines, {} bytes", path.display(), arguments.content.len());
    let change = change(&path, &before, &arguments.content);
    let changes = if !is_new && before == arguments.content { Vec::new() } else { vec![change] };
    Ok(Done { text, changes })
}
