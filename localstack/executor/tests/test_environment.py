"""The executor, with a scripted function and without LocalStack.

Run by `python -m unittest discover localstack/executor/tests`.
"""

import base64
import json
import os
import signal
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from host_executor.environment import Census, Environment  # noqa: E402
from host_executor.runtime_api import BUFFERED_BYTES_MAX, End, Event, InitError  # noqa: E402
from host_executor.sandbox import Log  # noqa: E402


class EnvironmentTest(unittest.TestCase):
    """Each test has an environment that ends with it."""

    def setUp(self):
        files = tempfile.TemporaryDirectory()
        self.addCleanup(files.cleanup)
        self.files, self.requests = Path(files.name), 0
        self.census = Census()

    def environment(self, start=True, **env):
        made = Environment(
            name=f"environment-{id(self)}",
            function="f",
            task_root=HERE,
            env={"PATH": os.environ["PATH"], **env},
            log=Log(self.files / "log"),
            init_secs_max=20.0,
            census=self.census,
        )
        self.addCleanup(made.close)
        if start:
            made.start()
        return made

    def run_event(self, environment, event, seconds_max=20.0):
        self.requests += 1
        payload = json.dumps(event).encode()
        return environment.invoke(
            Event(f"request-{self.requests}", payload, 0, "arn:f", "trace"), seconds_max
        )

    def where(self, environment):
        answer, _ = self.run_event(environment, {"do": "where"})
        return json.loads(answer.payload)

    def counts(self):
        return self.census.report()["functions"]["f"]

    def failure(self, environment, event, **how):
        answer, log = self.run_event(environment, event, **how)
        return answer.end, json.loads(answer.payload), log

    def test_a_warm_environment_is_one_process(self):
        warm = self.environment(STELE="set")
        first, second = self.where(warm), self.where(warm)
        self.assertEqual(first["pid"], second["pid"])
        self.assertEqual(first["pid"], warm.pid)
        self.assertEqual(first["cwd"], str(HERE))
        self.assertEqual(first["env"]["STELE"], "set")
        self.assertEqual(self.counts(), {"cold_starts": 1, "invocations": 2, "answered": 2})

    def test_a_log_is_framed_and_only_a_cold_start_reports_its_init(self):
        made = self.environment()
        _, cold = self.run_event(made, {"do": "print", "text": "first"})
        _, warm = self.run_event(made, {"do": "print", "text": "second"})
        self.assertTrue(cold.startswith("START RequestId: request-1\nfirst\nEND"), cold)
        self.assertIn("Init Duration: ", cold)
        self.assertNotIn("Init Duration", warm)
        self.assertNotIn("first", warm)

    def test_a_streamed_answer_is_brought_into_one(self):
        answer, _ = self.run_event(self.environment(), {"do": "stream"})
        shape = json.loads(answer.payload)
        self.assertEqual((shape["statusCode"], shape["headers"]), (201, {"x": "y"}))
        self.assertEqual(base64.b64decode(shape["body"]), b"one \xfftwo")

    def test_a_stream_without_an_end_is_an_error(self):
        made = self.environment()
        end, body, _ = self.failure(made, {"do": "stream without prelude"})
        self.assertEqual((end, body["errorType"]), (End.FAILED, "Runtime.InvalidResponse"))
        end, body, _ = self.failure(made, {"do": "cut the stream"})
        self.assertIn(body["errorType"], ["Runtime.TruncatedResponse", "Runtime.ExitError"])
        self.assertIsNot(end, End.ANSWERED)

    def test_an_answer_over_the_limit_is_an_error(self):
        made = self.environment()
        end, body, _ = self.failure(made, {"do": "large", "bytes": BUFFERED_BYTES_MAX})
        self.assertEqual((end, body["errorType"]), (End.FAILED, "Function.ResponseSizeTooLarge"))
        answer, _ = self.run_event(made, {"do": "large", "bytes": BUFFERED_BYTES_MAX - 2})
        self.assertEqual(len(answer.payload), BUFFERED_BYTES_MAX)

    def test_an_error_of_the_function_keeps_it_warm(self):
        made = self.environment()
        pid = made.pid
        end, body, _ = self.failure(made, {"do": "fail"})
        self.assertEqual((end, body), (End.FAILED, {"errorType": "Mine"}))
        self.assertEqual(made.pid, pid)

    def test_a_crash_is_an_exit_error_with_the_tail_of_the_log_and_a_cold_start_follows(self):
        made = self.environment()
        before = self.where(made)["pid"]
        for event, how in [("exit", "exit status 3"), ("signal", "SIGSEGV")]:
            end, body, log = self.failure(made, {"do": event})
            self.assertEqual((end, body["errorType"]), (End.EXITED, "Runtime.ExitError"))
            self.assertIn(how, body["errorMessage"])
            self.assertIn("about to exit", body["stackTrace"])
            self.assertIn("Status: exited", log)
        self.assertNotEqual(self.where(made)["pid"], before)
        self.assertEqual(self.counts()["cold_starts"], 3)

    def test_a_kill_while_idle_costs_a_cold_start_and_no_invocation(self):
        made = self.environment()
        before = self.where(made)["pid"]
        os.kill(before, signal.SIGKILL)
        while made.pid is not None:
            time.sleep(0.001)
        self.assertNotEqual(self.where(made)["pid"], before)

    def test_a_timeout_kills_the_process_and_what_it_started(self):
        made = self.environment()
        file = self.files / "child"
        end, body, log = self.failure(made, {"do": "hang", "file": str(file)}, seconds_max=1.0)
        self.assertEqual((end, body["errorType"]), (End.TIMED_OUT, "Sandbox.Timedout"))
        self.assertIn("timed out after 1.00 seconds", body["errorMessage"])
        self.assertIn("Status: timed_out", log)
        self.assertTrue(is_gone(int(file.read_text())))
        self.assertIsNone(made.pid)
        self.where(made)

    def test_work_that_outlives_its_request_is_frozen_until_the_next(self):
        made = self.environment()
        file = self.files / "ticks"
        self.run_event(made, {"do": "work on after the answer", "file": str(file)})
        frozen = wait_until_still(file)
        time.sleep(0.2)
        self.assertEqual(file.read_text(), frozen)
        # A hang is an invocation long enough to see it go on.
        child = str(self.files / "child")
        self.failure(made, {"do": "hang", "file": child}, seconds_max=0.5)
        self.assertGreater(len(file.read_text()), len(frozen))

    def test_an_init_that_exits_fails_or_hangs_is_told_apart(self):
        for init, kind, says in [
            ("exit", "Runtime.ExitError", "exit status 7"),
            ("error", "NoConfig", ""),
            ("hang", "Sandbox.Timedout", "Init timed out after 1.00 seconds"),
        ]:
            made = self.environment(start=False, INIT=init)
            made.init_secs_max = 1.0 if init == "hang" else 20.0
            with self.assertRaises(InitError) as raised:
                made.start()
            body = json.loads(raised.exception.answer.payload)
            self.assertEqual(body["errorType"], kind)
            self.assertIn(says, body.get("errorMessage", ""))
            self.assertIsNone(made.pid)
        self.assertEqual(self.counts()["init_errors"], 3)

    def test_a_closed_environment_leaves_no_process(self):
        made = self.environment()
        pid = self.where(made)["pid"]
        self.assertEqual(len(self.census.report()["environments"]), 1)
        made.close()
        self.assertTrue(is_gone(pid))
        self.assertEqual(self.census.report()["environments"], [])

    def test_environments_run_at_the_same_time(self):
        pids, threads = set(), []
        both = threading.Barrier(2)

        def one(number):
            made = Environment(
                f"e{number}", "f", HERE, {"PATH": os.environ["PATH"]},
                Log(self.files / f"log{number}"), 20.0, self.census,
            )  # fmt: skip
            made.start()
            both.wait(20)
            pids.add(json.loads(made.invoke(
                Event(f"r{number}", b'{"do":"where"}', 0, "", ""), 20.0
            )[0].payload)["pid"])  # fmt: skip
            both.wait(20)
            made.close()

        for number in range(2):
            threads.append(threading.Thread(target=one, args=(number,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(pids), 2)


def is_gone(pid, seconds_max=10.0):
    """Whether the process ends, or has ended and waits for its parent, within the time."""
    end = time.monotonic() + seconds_max
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def wait_until_still(file, seconds_max=10.0):
    """The content of `file` once it has stopped to grow."""
    end = time.monotonic() + seconds_max
    while time.monotonic() < end:
        before = file.read_text() if file.exists() else ""
        time.sleep(0.1)
        if before and file.read_text() == before:
            return before
    raise AssertionError(f"{file} still grows after {seconds_max} s")


if __name__ == "__main__":
    unittest.main()
