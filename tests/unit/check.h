/* For C tests: an assertion that says what it was and does not go away with NDEBUG. */
#ifndef CAP_TESTS_CHECK_H
#define CAP_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(what)                                                                      \
    do {                                                                                   \
        if (!(what)) {                                                                     \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #what);           \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

#endif
