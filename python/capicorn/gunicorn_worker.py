"""Capicorn under gunicorn: `gunicorn -k capicorn.GunicornWorker main:app`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from types import FrameType
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from capicorn.config import Config
from capicorn.server import Server


class GunicornWorker(Worker):  # type: ignore[misc]
    """One process of gunicorn's that serves with Capicorn. A subclass gives further arguments of Config in
    CONFIG_KWARGS."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for ours, theirs in (("capicorn", self.log.error_log), ("capicorn.access", self.log.access_log)):
            logger = logging.getLogger(ours)
            logger.handlers = theirs.handlers
            logger.setLevel(theirs.level)
            logger.propagate = False
        cfg = self.cfg
        values: dict[str, Any] = {
            "app": None,
            "log_config": None,
            "access_log": bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict),
            "timeout_keep_alive": cfg.keepalive,
            "timeout_notify": max(1, self.timeout) if self.timeout else 30,
            "callback_notify": self.callback_notify,
            "timeout_graceful_shutdown": cfg.graceful_timeout or None,
            "limit_max_requests": self.max_requests if self.max_requests < sys.maxsize else None,
            "limit_request_line": cfg.limit_request_line,
            "limit_request_fields": cfg.limit_request_fields,
            "limit_request_field_size": cfg.limit_request_field_size,
            "forwarded_allow_ips": cfg.forwarded_allow_ips,
            "backlog": cfg.backlog,
        }
        if cfg.access_log_format != cfg.settings["access_log_format"].default:
            values["access_log_format"] = cfg.access_log_format
        if cfg.threads > 1:
            values["threads"] = cfg.threads
        if cfg.is_ssl:
            options = cfg.ssl_options
            values.update(
                ssl_keyfile=options.get("keyfile"),
                ssl_certfile=options.get("certfile"),
                ssl_keyfile_password=options.get("password"),
                ssl_version=options.get("ssl_version"),
                ssl_cert_reqs=options.get("cert_reqs"),
                ssl_ca_certs=options.get("ca_certs"),
                ssl_ciphers=options.get("ciphers"),
            )
        values.update(self.CONFIG_KWARGS)
        self.config = Config(**values)
        self.server: Server | None = None

    def init_signals(self) -> None:
        """The Server takes SIGTERM and SIGINT itself; gunicorn's handlers would go round it."""
        for sig in self.SIGNALS:
            signal.signal(sig, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.signal(signal.SIGQUIT, self.handle_quit)
        signal.siginterrupt(signal.SIGUSR1, False)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """gunicorn's quick end."""
        self.alive = False
        if self.server is not None:
            self.server.force_exit = True
            self.server.should_exit = True

    async def callback_notify(self) -> None:
        self.notify()

    def run(self) -> None:
        self.config.app = self.wsgi
        # half of gunicorn's time, so that one late turn of the loop is no death sentence
        self.config.timeout_notify = max(1, int(self.timeout // 2)) if self.timeout else 30
        server = self.server = Server(config=self.config)
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self._serve(server))
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def _serve(self, server: Server) -> None:
        # gunicorn sends SIGTERM or SIGINT to end a worker: then that end is no failure
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, signal.SIG_IGN)
        await server.serve(sockets=self.sockets)
