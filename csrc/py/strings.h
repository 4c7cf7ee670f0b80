/* Interned strings that C looks up or hands out again and again: made once per
   module, found as st->str.NAME. Add a line, use it; nothing else to do.
   X(field, "text") */
#ifndef CAP_PY_STRINGS_H
#define CAP_PY_STRINGS_H

#define CAP_STRINGS(X)                                                         \
    /* ASGI scope and messages */                                              \
    X(type, "type")                                                            \
    X(http, "http")                                                            \
    X(https, "https")                                                          \
    X(websocket, "websocket")                                                  \
    X(asgi, "asgi")                                                            \
    X(version, "version")                                                      \
    X(spec_version, "spec_version")                                            \
    X(http_version, "http_version")                                            \
    X(server, "server")                                                        \
    X(client, "client")                                                        \
    X(scheme, "scheme")                                                        \
    X(root_path, "root_path")                                                  \
    X(headers, "headers")                                                      \
    X(state, "state")                                                          \
    X(method, "method")                                                        \
    X(path, "path")                                                            \
    X(raw_path, "raw_path")                                                    \
    X(query_string, "query_string")                                            \
    X(extensions, "extensions")                                                \
    X(subprotocols, "subprotocols")                                            \
    X(status, "status")                                                        \
    X(trailers, "trailers")                                                    \
    X(body, "body")                                                            \
    X(more_body, "more_body")                                                  \
    X(http_request, "http.request")                                            \
    X(http_disconnect, "http.disconnect")                                      \
    X(http_response_start, "http.response.start")                              \
    X(http_response_body, "http.response.body")                                \
    X(http_response_pathsend, "http.response.pathsend")                        \
    X(http_response_zerocopysend, "http.response.zerocopysend")                \
    X(http_response_trailers, "http.response.trailers")                        \
    X(http_response_early_hint, "http.response.early_hint")                    \
    X(more_trailers, "more_trailers")                                          \
    X(links, "links")                                                          \
    X(file, "file")                                                            \
    X(offset, "offset")                                                        \
    X(count, "count")                                                          \
    X(tls, "tls")                                                              \
    X(ws, "ws")                                                                \
    X(wss, "wss")                                                              \
    X(ws_spec_version, "2.4")                                                  \
    X(websocket_connect, "websocket.connect")                                  \
    X(websocket_receive, "websocket.receive")                                  \
    X(websocket_disconnect, "websocket.disconnect")                            \
    X(websocket_accept, "websocket.accept")                                    \
    X(websocket_send, "websocket.send")                                        \
    X(websocket_close, "websocket.close")                                      \
    X(websocket_http_response_start, "websocket.http.response.start")          \
    X(websocket_http_response_body, "websocket.http.response.body")            \
    X(subprotocol, "subprotocol")                                              \
    X(code, "code")                                                            \
    X(reason, "reason")                                                        \
    X(text, "text")                                                            \
    X(bytes, "bytes")                                                          \
    /* asyncio */                                                              \
    X(loop, "loop")                                                            \
    X(context, "context")                                                      \
    X(name, "name")                                                            \
    X(eager_start, "eager_start")                                              \
    X(call_soon, "call_soon")                                                  \
    X(call_later, "call_later")                                                \
    X(call_exception_handler, "call_exception_handler")                        \
    X(create_future, "create_future")                                          \
    X(create_task, "create_task")                                              \
    X(get_task_factory, "get_task_factory")                                    \
    X(add_reader, "add_reader")                                                \
    X(remove_reader, "remove_reader")                                          \
    X(set_result, "set_result")                                                \
    X(set_exception, "set_exception")                                          \
    X(done, "done")                                                            \
    X(cancel, "cancel")                                                        \
    X(cancelled, "cancelled")                                                  \
    X(message, "message")                                                      \
    X(exception, "exception")                                                  \
    /* coroutine protocol and introspection */                                 \
    X(send, "send")                                                            \
    X(throw_, "throw")                                                         \
    X(close, "close")                                                          \
    X(cr_frame, "cr_frame")                                                    \
    X(cr_code, "cr_code")                                                      \
    X(cr_running, "cr_running")                                                \
    X(cr_await, "cr_await")                                                    \
    /* ssl */                                                                  \
    X(read, "read")                                                            \
    X(write, "write")                                                          \
    X(write_eof, "write_eof")                                                  \
    X(pending, "pending")                                                      \
    X(do_handshake, "do_handshake")                                            \
    X(shutdown, "shutdown")                                                    \
    X(unwrap, "unwrap")                                                        \
    /* logging */                                                              \
    X(log, "log")                                                              \
    X(exc_info, "exc_info")                                                    \
    X(handlers, "handlers")                                                    \
    X(filters, "filters")                                                      \
    X(propagate, "propagate")                                                  \
    X(disabled, "disabled")                                                    \
    X(cache_, "_cache")                                                        \
    X(formatter, "formatter")                                                  \
    X(stream, "stream")                                                        \
    X(level, "level")                                                          \
    X(info, "info")                                                            \
    X(warning, "warning")                                                      \
    X(isEnabledFor, "isEnabledFor")                                            \
    X(tick_, "_tick")                                                          \
    X(phrase, "phrase")

#endif
