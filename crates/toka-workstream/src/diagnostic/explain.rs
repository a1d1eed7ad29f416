//! The long text of every code, each with a failing example that a test runs.

use super::Code;

/// What there is to know about a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// One line.
    pub title: &'static str,
    /// Why Toka says it, and what to do.
    pub text: &'static str,
    /// A workstream that it is said of; `None` where no text of a file can show it.
    pub example: Option<&'static str>,
}

impl Explanation {
    /// The whole explanation, for a terminal.
    pub fn render(&self, code: Code) -> String {
        let mut out = format!("{code}: {}\n", self.title);
        for paragraph in self.text.trim().split("\n\n") {
            out.push('\n');
            out.push_str(&fill(paragraph));
        }
        if let Some(example) = self.example {
            out.push_str("\nExample:\n\n");
            for line in example.lines() {
                let indent = if line.is_empty() { "" } else { "    " };
                out.push_str(&format!("{indent}{line}\n"));
            }
        }
        out
    }
}

/// Breaks a paragraph into lines of a readable width; one that is indented stays as it is.
fn fill(paragraph: &str) -> String {
    const WIDTH: usize = 88;
    if paragraph.starts_with(' ') {
        return format!("{paragraph}\n");
    }
    let mut out = String::new();
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
    out
}

impl Code {
    /// What there is to know about it.
    pub fn explain(self) -> Explanation {
        let (title, text, example) = match self {
            Self::Unreadable => UNREADABLE,
            Self::NoWorkstream => NO_WORKSTREAM,
            Self::FileTooLarge => FILE_TOO_LARGE,
            Self::NotUtf8 => NOT_UTF8,
            Self::Syntax => SYNTAX,
            Self::Tab => TAB,
            Self::TooComplex => TOO_COMPLEX,
            Self::DuplicateKey => DUPLICATE_KEY,
            Self::NotAMap => NOT_A_MAP,
            Self::UnknownKey => UNKNOWN_KEY,
            Self::MisspeltSection => MISSPELT_SECTION,
            Self::Missing => MISSING,
            Self::WrongType => WRONG_TYPE,
            Self::BadQuantity => BAD_QUANTITY,
            Self::OutOfRange => OUT_OF_RANGE,
            Self::UnknownChoice => UNKNOWN_CHOICE,
            Self::BadName => BAD_NAME,
            Self::DuplicateAgent => DUPLICATE_AGENT,
            Self::SelfDependency => SELF_DEPENDENCY,
            Self::DuplicateDependency => DUPLICATE_DEPENDENCY,
            Self::MissingDependency => MISSING_DEPENDENCY,
            Self::DependencyCycle => DEPENDENCY_CYCLE,
            Self::DroppedDependency => DROPPED_DEPENDENCY,
            Self::UnknownCapability => UNKNOWN_CAPABILITY,
            Self::UnknownGroup => UNKNOWN_GROUP,
            Self::ChecksumMismatch => CHECKSUM_MISMATCH,
            Self::NeedsModel => NEEDS_MODEL,
            Self::Conflict => CONFLICT,
            Self::BadValue => BAD_VALUE,
            Self::UnknownTask => UNKNOWN_TASK,
            Self::TaskCycle => TASK_CYCLE,
            Self::NoEffect => NO_EFFECT,
        };
        Explanation { title, text, example }
    }
}

type Entry = (&'static str, &'static str, Option<&'static str>);

const UNREADABLE: Entry = (
    "a path cannot be read",
    "The file or folder does not exist, may not be read by you, is a symbolic link that leads in a circle, or is not a
regular file: Toka reads no pipes and no devices. The message says which.

Paths are relative to the folder that the command is run in.",
    None,
);

const NO_WORKSTREAM: Entry = (
    "there is no workstream in what was given",
    "A file is empty or has nothing but comments, or a folder has no *.yaml or *.yml file directly in it. Folders are not
searched any deeper, so that a set of agents stays what one can see in one place.

`toka init` writes a workstream to start from.",
    Some("# Nothing but a comment.\n"),
);

const FILE_TOO_LARGE: Entry = (
    "a file is larger than any workstream",
    "Toka reads at most 1 MiB of a file, and does not begin to read a larger one. A workstream declares agents; what they
work on belongs in files of its own, which the agents can be allowed to read.",
    None,
);

const NOT_UTF8: Entry = (
    "a file is not UTF-8",
    "YAML files are Unicode text, and Toka reads them as UTF-8. The message names the first byte that is not. Editors on
Windows sometimes save UTF-16, older ones Latin-1; `iconv -f LATIN1 -t UTF-8` converts the latter.",
    None,
);

const SYNTAX: Entry = (
    "a file is not YAML",
    "The text breaks the grammar of YAML 1.2. The carets show where the parser noticed, which may be a line after the slip:
an unclosed quote or bracket is noticed where the next thing begins. The documents of the file before that place are checked
all the same.

A frequent cause is a text with `: ` or ` #` in it, which must be in quotes.",
    Some("metadata: {name: greeter\nspec:\n  process: {command: [echo, hello]}\n"),
);

const TAB: Entry = (
    "a tab where YAML wants spaces",
    "YAML forbids tabs in indentation, because their width is not the same everywhere. Most editors can be told to write
spaces when the tab key is hit.",
    Some("metadata:\n\tname: greeter\n"),
);

const TOO_COMPLEX: Entry = (
    "a document is too deep, too wide, or uses too many aliases",
    "A few lines of YAML can describe a document that no memory holds, by aliases of aliases. So Toka counts while it reads, and
stops at 64 levels of nesting, 20,000 keys and values (with what aliases repeat counted each time), 1,000 aliases, and 128 KiB
for a single value. No workstream that does work is near any of these.

The same code tells that a file has more problems than are shown.",
    Some(DEEP),
);

/// A list of lists, one deeper than is read.
const DEEP: &str = "[ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ [ ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ] ]
";

const DUPLICATE_KEY: Entry = (
    "a key stands twice in one map",
    "Which of the two counts would depend on who reads the file, so neither is guessed to be meant. Remove one.",
    Some("metadata: {name: greeter, name: other}\nspec: {process: {command: [echo, hello]}}\n"),
);

const NOT_A_MAP: Entry = (
    "a document is not a map",
    "Every document of a workstream file is one agent: a map of the sections `metadata`, `spec`, `capabilities`, `objectives`,
`tasks`, `dependencies`, `reporting`, `security`, and any of your own.",
    Some("- echo hello\n"),
);

const UNKNOWN_KEY: Entry = (
    "a key that its section does not have",
    "A key that Toka does not know inside of a section that it knows is an error: a limit that is misspelt would otherwise be
a limit that is not enforced. Sections of your own at the top level may have any keys.

`docs/workstream.md` and `toka schema` list all keys.",
    Some("metadata: {name: greeter}\nspec: {process: {comand: [echo, hello]}}\n"),
);

const MISSPELT_SECTION: Entry = (
    "a top-level section that is a slip of the pen",
    "Sections that Toka does not know are kept and handed to the agent. One that differs from a known section in one or two
letters is more likely a slip than a section of your own, and its content would be ignored; so it is an error.",
    Some("metadata: {name: greeter}\nspec: {process: {command: [echo, hello]}}\nsecurty: {sandbox: true}\n"),
);

const MISSING: Entry = (
    "something required is missing",
    "Required are `metadata.name`, and something to do: `spec.process`, or at least one task. A process needs `command` or
`shell`, a task and an objective a `description`, a secret `file` or `env`, a probe over the network a `port`. Everything
else has a default.",
    Some("metadata: {version: v1}\nspec: {process: {command: [echo, hello]}}\n"),
);

const WRONG_TYPE: Entry = (
    "a value of the wrong type",
    "A list stands where a text is expected, a text where a map is, and so on. A command is a list of a program and its
arguments, because only a shell could take a line apart; where a shell is wanted, say `shell: \"..\"`.",
    Some("metadata: {name: greeter}\nspec: {process: {command: echo hello}}\n"),
);

const BAD_QUANTITY: Entry = (
    "a size, share or duration that is none",
    "Sizes are `512MB`, `512M`, `512MiB` (all the same, powers of 1024) or bare bytes. Shares of CPU are `75%` or `0.75` of one
CPU; `200%` or `2` are two. Durations are `250ms`, `90s`, `1h30m`, `2d`, or bare seconds.",
    Some(
        "metadata: {name: greeter}\nspec: {process: {command: [echo, hello]}}\nsecurity: {resource_limits: {max_memory: 5 \
         parsecs}}\n",
    ),
);

const OUT_OF_RANGE: Entry = (
    "a number outside of what makes sense",
    "A limit is negative, zero, or larger than the kernel can enforce. The message names the bounds. To have no limit of your
own, leave the key out: the default then holds.",
    Some(
        "metadata: {name: greeter}\nspec: {process: {command: [echo, hello]}}\nsecurity: {resource_limits: {max_processes: \
         -1}}\n",
    ),
);

const UNKNOWN_CHOICE: Entry = (
    "a word that is none of the choices",
    "The key has a fixed set of values, which the help lists. Upper and lower case do not matter, nor `_` for `-`.",
    Some("metadata: {name: greeter}\nspec: {priority: urgent, process: {command: [echo, hello]}}\n"),
);

const BAD_NAME: Entry = (
    "a name that is not a DNS label",
    "Names of agents are DNS labels (RFC 1123): 1 to 63 lower-case letters, digits and inner hyphens. So they can be parts of
paths, of cgroups and of metrics without any quoting. `spec.name` is free text, for a name that people read.

In an optional dependency it is only a warning: nothing can have that name, so nothing is waited for.",
    Some("metadata: {name: Market Analysis}\nspec: {process: {command: [echo, hello]}}\n"),
);

const DUPLICATE_AGENT: Entry = (
    "two agents of one name",
    "Agents are addressed by name, so a name is unique among all files that one command is given. Both places are shown.",
    Some(
        "metadata: {name: greeter}\nspec: {process: {command: [echo, hello]}}\n---\nmetadata: {name: greeter}\nspec: \
         {process: {command: [echo, bye]}}\n",
    ),
);

const SELF_DEPENDENCY: Entry = (
    "an agent that depends on itself",
    "It would wait for its own end before it starts. Remove the name, or write the one that was meant.",
    Some(
        "metadata: {name: greeter}\nspec: {process: {command: [echo, hello]}}\ndependencies: {required: {greeter: why not}}\n",
    ),
);

const DUPLICATE_DEPENDENCY: Entry = (
    "a dependency that is named twice",
    "The first one counts, and a required one before an optional one.",
    Some(
        "metadata: {name: greeter}\nspec: {process: {command: [echo, hello]}}\ndependencies:\n  required: {fetch: for its \
         files}\n  optional: {fetch: for its order}\n",
    ),
);

const MISSING_DEPENDENCY: Entry = (
    "a dependency that is not among the agents",
    "No file that was given declares an agent of that name. `toka validate` only warns, for the rest may be elsewhere;
`toka plan` and `toka run` cannot do without a required one. An optional one that is missing orders nothing.",
    Some(
        "metadata: {name: greeter}\nspec: {process: {command: [echo, hello]}}\ndependencies: {required: {fetch: its files}}\n",
    ),
);

const DEPENDENCY_CYCLE: Entry = (
    "required dependencies that close a circle",
    "Each of the agents waits for the next, and the last for the first, so none can ever start. The whole circle is shown.
Make one of the edges optional if it only orders, or move what both need into an agent of its own.",
    Some(
        "metadata: {name: hen}\nspec: {process: {command: [echo, cluck]}}\ndependencies: {required: {egg: it \
         hatches}}\n---\nmetadata: {name: egg}\nspec: {process: {command: [echo, crack]}}\ndependencies: {required: {hen: she \
         lays}}\n",
    ),
);

const DROPPED_DEPENDENCY: Entry = (
    "an optional dependency that was dropped",
    "With it the agents would wait for each other in a circle. Optional dependencies only order, so this one is left out, and
the rest goes on.",
    Some(
        "metadata: {name: hen}\nspec: {process: {command: [echo, cluck]}}\ndependencies: {optional: {egg: it \
         hatches}}\n---\nmetadata: {name: egg}\nspec: {process: {command: [echo, crack]}}\ndependencies: {required: {hen: she \
         lays}}\n",
    ),
);

const UNKNOWN_CAPABILITY: Entry = (
    "a capability that Toka does not know",
    "It is kept as a label and grants nothing. That is fine for words that only people read; a slip in a known name means that
the agent lacks what it needs. `toka explain capabilities` lists the known names.",
    Some(
        "metadata: {name: greeter}\nspec: {process: {command: [echo, hello]}}\nsecurity: {capabilities_required: \
         [filesytem-read]}\n",
    ),
);

const UNKNOWN_GROUP: Entry = (
    "a group that was switched on and that no agent has",
    "`--enable GROUP` switches on the tasks of `tasks.conditional.GROUP`. None of the agents has a group of that name: tests
that somebody means to switch on would stay off, and the run would be a success all the same.",
    None,
);

const CHECKSUM_MISMATCH: Entry = (
    "the checksum does not fit the document",
    "`metadata.checksum` is the SHA-256 of the document in hexadecimal, with or without `sha256:` before it. The line that it
stands in does not count, because no text can hold its own hash. For a file of one document:

    grep -v '^ *checksum:' FILE | sha256sum

A document after the first begins with its `---` line. The checksum guards against slips, so a mismatch only warns.",
    Some("metadata:\n  name: greeter\n  checksum: sha256:00\nspec: {process: {command: [echo, hello]}}\n"),
);

const NEEDS_MODEL: Entry = (
    "a task that needs a model, and none is named",
    "The agent has no process, and the task has a description but no command: a model works on it, with tools in the agent's
sandbox. The file does not say which, so that the models are asked that you have chosen (`toka models`), and a person must have granted
`model-access`. Name one with `spec.model`, write `model: default` for those, or give the task a command with `run`.",
    Some("metadata: {name: greeter}\ntasks: {default: [{description: Greet everybody}]}\n"),
);

const CONFLICT: Entry = (
    "values that do not go together",
    "Both are there, and only one can hold: a `command` and a `shell`, two kinds of checks in one probe, a first wait that is
longer than the longest, a probe that connects to an agent without a network; a wait for objectives of an agent that has
none with a `check`, for the end of a service, or for an agent that only a person starts. Keep the one that is meant.",
    Some("metadata: {name: greeter}\nspec: {process: {command: [echo, hello], shell: echo hello}}\n"),
);

const BAD_VALUE: Entry = (
    "a text that cannot be what it should be",
    "The text has the right type, and still cannot be used: an empty command, a host without a port, a name that no
environment variable can have, a path with a NUL character.",
    Some(
        "metadata: {name: greeter}\nspec: {process: {command: [echo, hello]}}\nsecurity: {network: {allow: \
         [example.org]}}\n",
    ),
);

const UNKNOWN_TASK: Entry = (
    "a task that waits for no known task",
    "The `dependencies` of a task name other tasks of the same agent, by their description or their number from 1, and among
those that are switched on. What they do not name orders nothing. To wait for another agent, use the section
`dependencies`.",
    Some("metadata: {name: greeter}\ntasks: {default: [{description: Greet, run: echo hello, dependencies: [Wake up]}]}\n"),
);

const TASK_CYCLE: Entry = (
    "tasks that wait for each other",
    "Each of the tasks waits for the next, and the last for the first, so none could ever be done.",
    Some(
        "metadata: {name: greeter}\ntasks:\n  default:\n    - {description: Greet, run: echo hello, dependencies: \
         [Bow]}\n    - {description: Bow, run: echo bow, dependencies: [Greet]}\n",
    ),
);

const NO_EFFECT: Entry = (
    "a value that has no effect",
    "It is well-formed, and changes nothing: a YAML tag that Toka does not know, the timeout of a probe that waits for a word
of the agent itself, a rate for a network whose traffic does not go through Toka, a name in a list of hosts that only this host has, or a
capability that is required where another key would open it. The message says which.",
    Some("metadata: {name: greeter}\nspec: {process: {command: !include command.yaml}}\n"),
);
