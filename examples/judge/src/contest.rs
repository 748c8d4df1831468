//! A problem, its submissions, and how they are compiled and run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use lambda_sandbox::linux::{Extras, LinuxBackend, SystemCalls, Volume};
use lambda_sandbox::{Backend, Completed, Error, Root, SandboxSpec};

use crate::verdict::{Judged, Verdict, of_test};

/// A problem: its tests, and the limits of a program on each test.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) tests: Vec<Test>,
    /// Limit of processor time. The limit of wall-clock time is five times this.
    pub(crate) time: Duration,
    pub(crate) memory_mb: u32,
    pub(crate) output_bytes_max: u64,
}

#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) input: Vec<u8>,
    pub(crate) expected: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) name: String,
    pub(crate) language: Language,
    pub(crate) source: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Python,
    Shell,
}

impl Language {
    pub(crate) fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "c" => Some(Self::C),
            "py" => Some(Self::Python),
            "sh" => Some(Self::Shell),
            _ => None,
        }
    }

    /// Returns the command that runs the program in `/box/program`.
    fn command(self) -> &'static [&'static str] {
        match self {
            Self::C => &["/box/program"],
            Self::Python => &["/usr/bin/python3", "-I", "/box/program"],
            Self::Shell => &["/bin/bash", "/box/program"],
        }
    }
}

/// Judges submissions of one problem.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) backend: LinuxBackend,
    pub(crate) problem: Problem,
}

impl Judge {
    /// Compiles a submission if its language needs that, and runs it on each test until one fails.
    ///
    /// # Errors
    ///
    /// A sandbox cannot be made or run. A submission that fails is a verdict, not an error.
    pub(crate) async fn judge(&self, submission: &Submission) -> Result<Judged, Error> {
        let mut judged = Judged {
            verdict: Verdict::Accepted,
            cpu_time: Duration::ZERO,
            memory_peak_bytes: 0,
            note: String::new(),
        };
        let program = match submission.language {
            Language::C => match self.compile(&submission.source).await? {
                Ok(program) => program,
                Err(note) => {
                    (judged.verdict, judged.note) = (Verdict::DoesNotCompile, note);
                    return Ok(judged);
                }
            },
            _ => submission.source.clone(),
        };
        let folder = place(&program)?;
        for (number, test) in (1..).zip(&self.problem.tests) {
            let done = self.run(submission.language, folder.path(), test).await?;
            let usage = done.finished.usage;
            judged.cpu_time = judged.cpu_time.max(usage.cpu_time.unwrap_or_default());
            judged.memory_peak_bytes =
                judged.memory_peak_bytes.max(usage.memory_peak_bytes.unwrap_or(0));
            judged.verdict = of_test(&done, &test.expected);
            if judged.verdict != Verdict::Accepted {
                let finished = done.finished;
                judged.note = format!("test {number}: {}, {}", finished.ended_by, finished.exit);
                break;
            }
        }
        Ok(judged)
    }

    /// Compiles in a sandbox of its own, because source code can make a compiler use up a machine.
    /// Returns the program, which is read from a volume, or the compiler's first error.
    async fn compile(&self, source: &[u8]) -> Result<Result<Vec<u8>, String>, Error> {
        let volume = Volume::new(PROGRAM_BYTES_MAX * 2, 100)?;
        volume.write("program.c", source)?;
        let command = ["/usr/bin/gcc", "-O2", "-o", "program", "program.c", "-lm"];
        let spec = SandboxSpec::new(Root::of_machine(), command)
            .in_folder("/work")
            .with_env("PATH", "/usr/bin:/bin")
            .with_memory_mb(512)
            .with_cpus(1.0)
            .with_processor_time(Duration::from_secs(10))
            .with_wall_time(Duration::from_secs(30))
            .with_output_bytes_max(64 * 1024)
            .with_linux(Extras::default().with_volume("/work", &volume));
        let done = self.backend.run(spec).await?;
        if !done.finished.is_success() {
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            let first = text.lines().find(|line| line.contains("error"));
            return Ok(Err(first.unwrap_or("the compiler has failed").to_owned()));
        }
        let most = usize::try_from(PROGRAM_BYTES_MAX).unwrap_or(usize::MAX);
        Ok(volume.read("program", most).map_err(|error| error.to_string()))
    }

    /// Runs a program on one test, in a new sandbox, so that nothing of one run is left for the
    /// next.
    async fn run(
        &self,
        language: Language,
        folder: &Path,
        test: &Test,
    ) -> Result<Completed, Error> {
        let problem = &self.problem;
        let root = Root::of_machine().with_bind(folder, "/box");
        let mut spec = SandboxSpec::new(root, language.command())
            .in_folder("/tmp")
            .with_env("PATH", "/usr/bin:/bin")
            .with_env("HOME", "/tmp")
            .with_stdin(test.input.clone())
            .with_memory_mb(problem.memory_mb)
            .with_cpus(1.0)
            .with_processor_time(problem.time)
            .with_wall_time(problem.time * 5)
            .with_output_bytes_max(problem.output_bytes_max)
            .with_linux(Extras::default().with_system_calls(SystemCalls::Tripwire));
        spec.limits.processes_max = 16;
        spec.limits.files_max = 64;
        spec.limits.scratch_bytes = 16 << 20;
        self.backend.run(spec).await
    }
}

/// Writes a program to a new folder, where every user can read and execute it.
fn place(program: &[u8]) -> Result<tempfile::TempDir, Error> {
    let made = || -> std::io::Result<tempfile::TempDir> {
        let folder = tempfile::tempdir()?;
        let open = || fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open())?;
        let path = folder.path().join("program");
        fs::write(&path, program)?;
        fs::set_permissions(&path, open())?;
        Ok(folder)
    };
    made().map_err(|source| Error::step("placing a program", source))
}

const PROGRAM_BYTES_MAX: u64 = 16 << 20;
