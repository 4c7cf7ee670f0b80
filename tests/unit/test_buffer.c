#include "base/buffer.h"
#include "base/mem.h"

#include <stdint.h>
#include <string.h>

#include "check.h"

static void
test_append_and_consume(void)
{
    cap_buffer b = {0};
    char want[3000];
    size_t len = 0;
    for (int i = 0; i < 1000; i++) {
        char piece[3] = {(char)i, (char)(i >> 8), 'x'};
        memcpy(want + len, piece, 3);
        len += 3;
        REQUIRE(cap_buffer_append(&b, piece, 3) == 0);
        REQUIRE(b.len == len && b.cap >= b.len);
    }
    REQUIRE(memcmp(b.data, want, len) == 0);
    cap_buffer_consume(&b, 0);
    REQUIRE(b.len == len);
    cap_buffer_consume(&b, 1000);
    REQUIRE(b.len == len - 1000 && memcmp(b.data, want + 1000, b.len) == 0);
    cap_buffer_consume(&b, b.len);
    REQUIRE(b.len == 0 && b.cap > 0);
    cap_buffer_free(&b);
    REQUIRE(b.data == NULL && b.len == 0 && b.cap == 0);
    cap_buffer_free(&b);
    REQUIRE(cap_buffer_append(&b, NULL, 0) == 0 && b.data == NULL);
}

static void
test_growth_is_linear(void)
{
    cap_buffer b = {0};
    int moves = 0;
    for (size_t i = 0; i < 1 << 20; i++) {
        size_t before = b.cap;
        REQUIRE(cap_buffer_append(&b, "x", 1) == 0);
        moves += b.cap != before;
        REQUIRE(before == 0 || b.cap == before || b.cap >= before + before / 2);
    }
    REQUIRE(moves < 30);
    cap_buffer_free(&b);
}

static void
test_reserve(void)
{
    cap_buffer b = {0};
    REQUIRE(cap_buffer_reserve(&b, 0) == 0 && b.data == NULL);
    REQUIRE(cap_buffer_reserve(&b, 5000) == 0 && b.cap >= 5000 && b.len == 0);
    size_t cap = b.cap;
    REQUIRE(cap_buffer_reserve(&b, cap) == 0 && b.cap == cap);
    REQUIRE(cap_buffer_append(&b, "abc", 3) == 0);
    REQUIRE(cap_buffer_reserve(&b, SIZE_MAX) == -1);
    REQUIRE(cap_buffer_reserve(&b, (size_t)PTRDIFF_MAX) == -1);
    REQUIRE(b.len == 3 && b.cap == cap && memcmp(b.data, "abc", 3) == 0);
    cap_mem_fail(1, 1);
    REQUIRE(cap_buffer_reserve(&b, 2 * cap) == -1);
    REQUIRE(b.len == 3 && b.cap == cap && memcmp(b.data, "abc", 3) == 0);
    REQUIRE(cap_buffer_reserve(&b, 2 * cap) == 0);
    cap_buffer_free(&b);
}

int
main(void)
{
    long before = cap_mem_blocks();
    test_append_and_consume();
    test_growth_is_linear();
    test_reserve();
    REQUIRE(cap_mem_blocks() == before);
    return 0;
}
