"""Config's keyword arguments for type checkers; written by `python -m capicorn.settings --typed`."""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from configparser import RawConfigParser
from typing import IO, Any, TypedDict


class ConfigArguments(TypedDict, total=False):
    host: str | None
    port: int
    uds: str | None
    uds_permissions: int | str | None
    fd: int | None
    bind: list[str] | str | None
    backlog: int
    factory: bool
    interface: str
    lifespan: str
    root_path: str
    env_file: str | os.PathLike[str] | None
    reset_contextvars: bool
    reload: bool
    reload_dirs: list[str] | str | None
    reload_includes: list[str] | str | None
    reload_excludes: list[str] | str | None
    reload_delay: float
    workers: int | None
    worker_start: str
    preload: bool
    threads: int | None
    native_threads: bool
    gc_freeze: bool
    timeout: float
    block_warn: float
    rescue: bool
    health_bind: str | None
    health_path: str | None
    metrics_bind: str | None
    max_worker_memory: int | None
    daemon: bool
    pidfile: str | None
    user: str | None
    group: str | None
    umask: str | None
    chdir: str | None
    proc_name: str | None
    hooks: dict[str, Callable[..., Any]] | None
    loop: str
    http: Any
    http2: bool
    ws: Any
    ws_max_size: int
    ws_max_queue: int
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    ws_per_message_deflate: bool
    log_config: dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None
    log_level: str | int | None
    access_log: bool
    access_log_format: str | None
    access_log_json: bool
    access_log_exclude: list[str] | str | None
    access_logfile: str | None
    error_logfile: str | None
    use_colors: bool | None
    proxy_headers: bool
    forwarded_header: str
    forwarded_allow_ips: list[str] | str | None
    proxy_protocol: bool
    proxy_allow_from: list[str] | str
    server_header: bool
    date_header: bool
    headers: list[tuple[str, str]] | None
    limit_concurrency: int | None
    limit_max_requests: int | None
    limit_max_requests_jitter: int
    limit_request_line: int
    limit_request_head: int
    limit_request_fields: int
    limit_request_field_size: int
    limit_request_body: int
    h11_max_incomplete_event_size: int | None
    timeout_keep_alive: float
    timeout_first_byte: float
    timeout_request_head: float
    timeout_request_body: float
    timeout_send: float
    timeout_request: float
    timeout_shutdown_idle: float
    timeout_shutdown_streams: float
    timeout_graceful_shutdown: float | None
    timeout_worker_healthcheck: int
    timeout_notify: int
    callback_notify: Callable[..., Awaitable[None]] | None
    ssl_keyfile: str | os.PathLike[str] | None
    ssl_certfile: str | os.PathLike[str] | None
    ssl_keyfile_password: str | None
    ssl_version: int
    ssl_cert_reqs: int
    ssl_ca_certs: str | os.PathLike[str] | None
    ssl_ciphers: str | None
    ssl_context_factory: Callable[[Any, Callable[[], ssl.SSLContext]], ssl.SSLContext] | None


class RunArguments(ConfigArguments, total=False):
    app_dir: str | None
    worker_class: str | None
    config_file: str | None
