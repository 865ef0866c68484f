//! What an interpreter was told to run, by its command line. Code that stands there itself has no name, and
//! nothing of it, nor of what it is given, may become one: keys stand in there as well.
//!
//! Where a command line can be read in two ways, the one without a name is taken. Of options that are not
//! known here it is believed that they have no value of their own.

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Language {
    Bun,
    Deno,
    Java,
    Node,
    Perl,
    Php,
    Python,
    Ruby,
    Shell,
    Uv,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told<'a> {
    Script(&'a str),
    Module(&'a str),
}

/// How a command line is read. Letters may stand together behind one `-`; the value of one is what is left
/// of the word, or else the next argument. Words stand alone, or have their value behind a `=`.
#[derive(Clone, Copy, Default)]
struct Syntax {
    code: &'static str,
    module: &'static str,
    script: &'static str,
    value: &'static str,
    /// Their value is what is left of the word, if anything.
    rest: &'static str,
    /// From here on lists with a blank between two.
    code_words: &'static str,
    module_words: &'static str,
    script_words: &'static str,
    value_words: &'static str,
    /// They may stand before the script.
    commands: &'static str,
}

/// What an option says of what comes next.
enum Step<'a> {
    Nothing,
    /// The next argument is its value.
    Value,
    /// It is code, or nobody can tell.
    Code,
    /// This, or the next argument.
    Script(&'a str),
    Module(&'a str),
}

impl Language {
    /// `python3.12`, `node22`, `java`.
    pub(super) fn of(base: &str) -> Option<Self> {
        Some(match base.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-') {
            "bun" | "bunx" => Self::Bun,
            "deno" => Self::Deno,
            "java" => Self::Java,
            "node" | "nodejs" | "electron" => Self::Node,
            "perl" => Self::Perl,
            "php" => Self::Php,
            // As Apple's frameworks, Homebrew's and python.org's have it.
            "python" | "Python" | "pypy" => Self::Python,
            "ruby" => Self::Ruby,
            "sh" | "bash" | "dash" | "zsh" => Self::Shell,
            "uv" => Self::Uv,
            _ => return None,
        })
    }

    /// `None`: code, standard input, nothing at all.
    pub(super) fn told(self, arguments: &[String]) -> Option<Told<'_>> {
        let syntax = self.syntax();
        let mut rest = arguments.iter().skip(1).map(String::as_str).peekable();
        while let Some(argument) = rest.next() {
            let step = match argument {
                "-" => return None,
                // What follows it are arguments of a script that was named before, or of code.
                "--" if self == Self::Php => return None,
                "--" => return rest.next().map(Told::Script),
                command if is_among(syntax.code_words, command) => return None,
                command if is_among(syntax.commands, command) => Step::Nothing,
                // A file of options.
                file if self == Self::Java && file.starts_with('@') => Step::Nothing,
                option if option.starts_with('-') => syntax.step(option, self),
                option if self == Self::Shell && option.starts_with('+') => {
                    letters_of_shell(option)
                }
                path => return Some(Told::Script(path)),
            };
            match step {
                Step::Nothing => {}
                // One that looks like an option may be one: then code follows, maybe.
                Step::Value => drop(rest.next_if(|value| !value.starts_with('-'))),
                Step::Code => return None,
                Step::Script("") => return rest.next().map(Told::Script),
                Step::Module("") => return rest.next().map(Told::Module),
                Step::Script(path) => return Some(Told::Script(path)),
                Step::Module(name) => return Some(Told::Module(name)),
            }
        }
        None
    }

    fn syntax(self) -> Syntax {
        match self {
            Self::Bun => Syntax {
                code: "ep",
                value: "rdlF",
                code_words: "--eval --print exec repl",
                value_words: BUN,
                commands: "run x",
                ..Syntax::default()
            },
            Self::Deno => Syntax {
                code: "ep",
                value: "cL",
                code_words: "--eval --eval-file eval repl",
                value_words: DENO,
                commands: "run serve x",
                ..Syntax::default()
            },
            Self::Java => {
                Syntax { module_words: "-jar -m --module", value_words: JAVA, ..Syntax::default() }
            }
            Self::Node => Syntax {
                code: "ep",
                value: "rC",
                code_words: "--eval --print --run",
                value_words: NODE,
                commands: "inspect",
                ..Syntax::default()
            },
            Self::Perl => Syntax { code: "eE", value: "I", rest: ":CDFMm", ..Syntax::default() },
            Self::Php => Syntax {
                code: "rBRE",
                script: "fF",
                value: "cdzSt",
                code_words: "--run --process-begin --process-code --process-end",
                script_words: "--file --process-file",
                value_words: PHP,
                ..Syntax::default()
            },
            Self::Python => Syntax {
                code: "c",
                module: "m",
                value: "QWX",
                value_words: "--check-hash-based-pycs --jit",
                ..Syntax::default()
            },
            Self::Ruby => Syntax {
                code: "e",
                value: "CEIXr",
                rest: ":Fi",
                value_words: RUBY,
                ..Syntax::default()
            },
            Self::Shell => {
                Syntax { value_words: "--rcfile --init-file --emulate", ..Syntax::default() }
            }
            Self::Uv => Syntax {
                module: "m",
                value: "CPfipw",
                module_words: "--module",
                value_words: UV,
                commands: "tool run x",
                ..Syntax::default()
            },
        }
    }
}

fn is_among(words: &str, word: &str) -> bool {
    words.split_ascii_whitespace().any(|known| known == word)
}

impl Syntax {
    fn step<'a>(&self, option: &'a str, language: Language) -> Step<'a> {
        let (word, value) = option.split_once('=').unzip();
        let word = word.unwrap_or(option);
        let value = value.unwrap_or_default();
        if is_among(self.code_words, word) {
            Step::Code
        } else if is_among(self.module_words, word) {
            Step::Module(value)
        } else if is_among(self.script_words, word) {
            Step::Script(value)
        } else if is_among(self.value_words, option) {
            Step::Value
        } else if option.starts_with("--") {
            Step::Nothing
        } else if language == Language::Shell {
            letters_of_shell(option)
        } else {
            self.letters(option)
        }
    }

    fn letters<'a>(&self, option: &'a str) -> Step<'a> {
        let mut letters = option.chars();
        // The dash.
        letters.next();
        while let Some(letter) = letters.next() {
            let rest = letters.as_str();
            if self.code.contains(letter) {
                return Step::Code;
            } else if self.module.contains(letter) {
                return Step::Module(rest);
            } else if self.script.contains(letter) {
                return Step::Script(rest);
            } else if self.value.contains(letter) {
                return if rest.is_empty() { Step::Value } else { Step::Nothing };
            } else if letter == '=' || self.rest.contains(letter) {
                return Step::Nothing;
            }
        }
        Step::Nothing
    }
}

/// The code of `-c` is no value of it: it comes when all options are over, wherever `c` stands. With `-s` it
/// comes from standard input, and what follows are its arguments.
fn letters_of_shell(option: &str) -> Step<'_> {
    let letters = option.get(1..).unwrap_or_default();
    match letters.find(['o', 'O']) {
        _ if letters.contains(['c', 's']) => Step::Code,
        None => Step::Nothing,
        Some(at) if at + 1 == letters.len() => Step::Value,
        // To some shells the rest is its value, to others it is more letters.
        Some(_) => Step::Code,
    }
}

/// Here and below, only what has its value in the next argument for certain: else the script would be
/// taken for the value, and what the script is given for the script.
const NODE: &str = "\
    --allow-fs-read --allow-fs-write --conditions --cpu-prof-dir --cpu-prof-interval \
    --cpu-prof-name --debug-port --diagnostic-dir --disable-proto --disable-warning \
    --dns-result-order --env-file --env-file-if-exists --experimental-default-type \
    --experimental-loader --heap-prof-dir --heap-prof-interval --heap-prof-name \
    --heapsnapshot-near-heap-limit --heapsnapshot-signal --icu-data-dir --import \
    --input-type --inspect-port --loader --localstorage-file --max-http-header-size \
    --openssl-config --redirect-warnings --report-dir --report-directory --report-filename \
    --report-signal --require --secure-heap --secure-heap-min --test-concurrency \
    --test-name-pattern --test-reporter --test-reporter-destination --title \
    --tls-cipher-list --tls-keylog --trace-event-categories --unhandled-rejections \
    --watch-path";

const BUN: &str = "\
    --conditions --console-depth --cwd --define --dns-result-order --drop --elide-lines \
    --env-file --extension-order --filter --import --loader --main-fields \
    --max-http-header-size --port --preload --require --shell --title --user-agent";

const DENO: &str = "\
    --cert --conditions --config --ext --host --import-map --location --lock --log-level \
    --port --preload --seed";

const JAVA: &str = "\
    --add-exports --add-modules --add-opens --add-reads --class-path --describe-module \
    --enable-native-access --limit-modules --module-path --patch-module --source \
    --upgrade-module-path -classpath -cp -d -p";

const PHP: &str = "--define --docroot --php-ini --rc --re --rf --ri --rz --server --zend-extension";

const RUBY: &str = "--disable --dump --enable --encoding --external-encoding --internal-encoding";

const UV: &str = "\
    --allow-insecure-host --cache-dir --color --config-file --config-setting --default-index \
    --directory --env-file --exclude-newer --extra --extra-index-url --find-links \
    --fork-strategy --from --group --index --index-strategy --index-url --keyring-provider \
    --link-mode --no-extra --no-group --only-group --package --prerelease --project --python \
    --python-platform --refresh-package --reinstall-package --resolution --upgrade-package \
    --with --with-editable --with-requirements";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Option<String> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let language = Language::of(&arguments[0]).unwrap();
        language.told(&arguments).map(|told| match told {
            Told::Script(path) => path.to_owned(),
            Told::Module(name) => format!("m:{name}"),
        })
    }

    #[test]
    fn code_is_no_name_nor_is_what_it_is_given() {
        for line in [
            "python3 -c x(key='sk-proj-1')",
            "python3 -uc x=1 sk-proj-1",
            "python3 -Bc x=1",
            "python3 -Ic x=1 sk-proj-1",
            "python3 -cx('y') sk-proj-1",
            "python3 -Ibucx('y') sk-proj-1",
            "python3 -W ignore -c x=1",
            "python3 -Wignore -uc x=1",
            "python3 -W -c x=1",
            "python3 -X -c x=1",
            "python3 --check-hash-based-pycs never -c x=1",
            "python3 - sk-proj-1",
            "pypy3 -Sc x=1",
            "node -e x=1",
            "node -pe x=1 sk-proj-1",
            "node -p x=1",
            "node --eval x=1",
            "node --eval=x=1 sk-proj-1",
            "node --print=x=1 sk-proj-1",
            "node --print x=1",
            "node -r dotenv/config -e x=1",
            "node --import -e x=1",
            "node --input-type module --eval x=1",
            "node22 --input-type=module -e x=1",
            "node --run dev -- sk-proj-1",
            "electron -pe x=1",
            "bun -e x=1",
            "bun -pe x=1",
            "bun run --eval x=1",
            "bun -r ./x.ts -e x=1",
            "bun exec echo&&sk-proj-1",
            "deno eval x=1",
            "deno eval -p x=1",
            "deno repl --eval x=1",
            "deno eval --ext ts x=1",
            "perl -e x=1",
            "perl -E x=1",
            "perl -we x=1 sk-proj-1",
            "perl -ne x=1",
            "perl -lane x=1",
            "perl -0777ne x=1",
            "perl -l012e x=1",
            "perl -0xAne x=1",
            "perl -pie x=1",
            "perl -F: -lane x=1",
            "perl -MJSON::PP -e x=1",
            "perl -Mstrict -we x=1",
            "perl -I lib -E x=1",
            "perl -pi.bak -e x=1 file",
            "perl -de x=1",
            "perl -ex=1 sk-proj-1",
            "ruby -e x=1",
            "ruby -ne x=1",
            "ruby -rjson -e x=1",
            "ruby -r json -e x=1",
            "ruby -W0 -e x=1",
            "ruby -W0e x=1",
            "ruby -00pe x=1",
            "ruby -ex=1 sk-proj-1",
            "ruby -I lib -e x=1",
            "ruby --disable gems -e x=1",
            "php -r x=1",
            "php -nr x=1",
            "php -rx=1 sk-proj-1",
            "php -d memory_limit=1G -r x=1",
            "php -dkey=sk-proj-1 -r x=1",
            "php -B x=1 -R x=1 -E x=1",
            "php --run x=1",
            "php --process-code x=1",
            "php -- sk-proj-1",
            "sh -c x=1",
            "bash -lc x=1",
            "bash -ec x=1",
            "bash -ce x=1",
            "bash -c -e x=1 sk-proj-1",
            "bash -o pipefail -c x=1",
            "bash -euo pipefail -c x=1",
            "bash -oc pipefail x=1",
            "bash +o history -c x=1",
            "bash +x -c x=1",
            "bash --rcfile x -ic x=1",
            "bash --norc -c x=1",
            "bash -norc -c x=1",
            "bash -o -c x=1",
            "zsh -fc x=1",
            "zsh -oextendedglob -c x=1",
            "zsh -oextendedglob a.sh sk-proj-1",
            "dash -xc x=1",
            "bash -s sk-proj-1",
            "bash -es -- sk-proj-1",
        ] {
            assert_eq!(told(line), None, "{line}");
        }
    }

    #[test]
    fn scripts_and_modules_behind_options_of_all_kinds() {
        for (line, expected) in [
            ("python3 agent.py -c x", "agent.py"),
            ("python3 -u agent.py", "agent.py"),
            ("python3 -uW ignore agent.py", "agent.py"),
            ("python3 -Xutf8 agent.py", "agent.py"),
            ("python3 --check-hash-based-pycs never agent.py", "agent.py"),
            ("python3 -- agent.py", "agent.py"),
            ("python3 -m aider", "m:aider"),
            ("python3 -um aider", "m:aider"),
            ("python3 -maider", "m:aider"),
            ("node --env-file .env agent.js", "agent.js"),
            ("node --env-file=.env agent.js", "agent.js"),
            ("node --import fs agent.js", "agent.js"),
            ("node -r fs agent.js", "agent.js"),
            ("node --require fs -C dev agent.js -e", "agent.js"),
            ("node --inspect --no-warnings agent.js", "agent.js"),
            ("node inspect agent.js", "agent.js"),
            ("bun run --env-file .env agent.ts", "agent.ts"),
            ("bun x agent", "agent"),
            ("deno run -A --config deno.json agent.ts", "agent.ts"),
            ("deno run -c deno.json --allow-env=KEY agent.ts", "agent.ts"),
            ("deno run -N=api.openai.com -E=KEY agent.ts", "agent.ts"),
            ("java -cp lib/a.jar:lib/b.jar Agent", "Agent"),
            ("java -p mods -Xmx1g -m acme/acme.Agent", "m:acme/acme.Agent"),
            ("java @options --add-opens a/b=c -Dkey=sk-proj-1 -jar agent.jar", "m:agent.jar"),
            ("perl -w -I lib agent.pl", "agent.pl"),
            ("perl -MJSON::PP -Ilib agent.pl", "agent.pl"),
            ("perl -d:Trace agent.pl", "agent.pl"),
            ("ruby -ropen-uri agent.rb", "agent.rb"),
            ("ruby -r net/http -W:no-experimental agent.rb", "agent.rb"),
            ("php -d key=sk-proj-1 agent.php", "agent.php"),
            ("php -f agent.php -- x", "agent.php"),
            ("php --file agent.php", "agent.php"),
            ("bash -eu agent.sh", "agent.sh"),
            ("bash -euo pipefail agent.sh", "agent.sh"),
            ("bash -o pipefail -x -- agent.sh", "agent.sh"),
            ("uv run --index-url https://me:sk-proj-1@x/simple -p 3.12 agent.py", "agent.py"),
            ("uv run -- agent", "agent"),
            ("uv run -m aider", "m:aider"),
        ] {
            assert_eq!(told(line).as_deref(), Some(expected), "{line}");
        }
    }
}
