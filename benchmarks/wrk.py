"""wrk, when it is installed, as a check of our own load program: both should see about the same rate."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess

from .cases import Case
from .environment import Environment
from .processes import Cores, Failed, Running, loaded, pin
from .servers import SERVERS


def script(case: Case) -> str:
    """In Lua: the request, and as many copies as are pipelined."""
    lines = [f'wrk.method = "{case.method}"']
    lines += [f'wrk.headers["{name}"] = {quoted(value)}' for name, value in case.headers]
    if case.body:
        lines.append(f"wrk.body = {quoted(case.body.decode())}")
    if case.pipelined > 1:
        lines += [
            "local all",
            "init = function(args)",
            "  local one = wrk.format()",
            f"  all = string.rep(one, {case.pipelined})",
            "end",
            "request = function() return all end",
        ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def rate(program: str, running: Running, seconds: int) -> float:
    case = running.case
    path = running.env.work / "wrk.lua"
    path.write_text(script(case))
    cores = running.cores.load
    done = subprocess.run(
        [
            program,
            f"-t{len(cores)}",
            f"-c{case.connections}",
            f"-d{seconds}s",
            "-s",
            str(path),
            f"http://127.0.0.1:{running.port}{case.path}",
        ],
        capture_output=True,
        text=True,
        preexec_fn=lambda: pin(cores),
        timeout=seconds + 30,
    )
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    wrong = re.search(r"Non-2xx.*|Socket errors.*", done.stdout)
    if wrong or not found:
        raise Failed(wrong.group(0) if wrong else (done.stdout + done.stderr).strip()[-200:])
    return float(found.group(1))


def check(case: Case, names: list[str], env: Environment) -> str:
    """Each server's rate with our load program and with wrk, three turns of each in turn, as a line of ratios."""
    program = shutil.which("wrk")
    if program is None:
        return "wrk is not installed"
    if case.kind != "http" or case.tls or case.each_its_own:
        return f"{case.name}: not a case for wrk"
    parts = []
    for name in names:
        if name not in SERVERS:
            continue
        running = Running(SERVERS[name], case, env, Cores.split(case.workers))
        try:
            running.wait_until_up()
            ratios = []
            for _ in range(3):
                result = loaded(running, 1.0)
                ratios.append(rate(program, running, 1) / (result["requests"] / result["seconds"]))
            parts.append(f"{name} {statistics.median(ratios):.2f}")
        except (Failed, subprocess.TimeoutExpired) as e:
            parts.append(f"{name} failed: {e}")
        finally:
            running.stop()
    return f"{case.name}: wrk's rate in terms of ours: " + ", ".join(parts)
