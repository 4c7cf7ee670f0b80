#include "base/header_table.h"

#include <ctype.h>
#include <string.h>

#include "check.h"

static const char *const names[] = {
#define X(id, name) name,
    CAP_HEADERS(X)
#undef X
};
#define COUNT (sizeof(names) / sizeof(names[0]))

static cap_header
find(const char *name, size_t len)
{
    char *copy = malloc(len + (len == 0)); /* nothing behind it may be read */
    REQUIRE(copy != NULL);
    memcpy(copy, name, len);
    cap_header id = cap_header_find(copy, len);
    free(copy);
    return id;
}

int
main(void)
{
    REQUIRE(COUNT == CAP_HDR_COUNT - 1);
    for (size_t i = 0; i < COUNT; i++) {
        cap_header id = (cap_header)(i + 1);
        size_t len = strlen(names[i]), n;
        REQUIRE(find(names[i], len) == id);
        REQUIRE(strcmp(cap_header_name(id, &n), names[i]) == 0 && n == len);
        char text[64];
        for (size_t k = 0; k <= len; k++)
            text[k] = (char)toupper(names[i][k]);
        REQUIRE(find(text, len) == id);
        text[0] = names[i][0];
        REQUIRE(find(text, len) == id);
        /* no other octet in any place, no beginning, nothing behind it */
        for (size_t k = 0; k < len; k++) {
            memcpy(text, names[i], len + 1);
            for (int c = 0; c < 256; c++) {
                text[k] = (char)c;
                if (tolower(c) != names[i][k])
                    REQUIRE(find(text, len) != id);
            }
        }
        for (size_t k = 0; k < len; k++)
            REQUIRE(find(names[i], k) != id);
        snprintf(text, sizeof(text), "%sx", names[i]);
        REQUIRE(find(text, len + 1) == CAP_HDR_OTHER);
    }
    REQUIRE(find("", 0) == CAP_HDR_OTHER);
    REQUIRE(find("x", 1) == CAP_HDR_OTHER);
    REQUIRE(find("content\rlength", 14) == CAP_HDR_OTHER);
    REQUIRE(find("x-forwarded-fot", 15) == CAP_HDR_OTHER);
    return 0;
}
