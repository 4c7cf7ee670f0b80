/* The request parser: whatever the input, and however it is cut, the events are the
   same, every head holds together (h1_trace.h), and nothing beyond the input is read.

   With libFuzzer: clang -fsanitize=fuzzer. With -DREPLAY a program of its own that
   runs the files named on its command line. */
#include "../unit/h1_trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
compare(const cap_buffer *whole, const char *data, size_t size, const size_t *cuts, size_t ncuts,
        const cap_http_limits *limits)
{
    cap_buffer cut = {0};
    h1_trace(&cut, data, size, cuts, ncuts, limits);
    if (cut.len != whole->len || memcmp(cut.data, whole->data, cut.len) != 0) {
        fprintf(stderr, "whole:\n%.*scut:\n%.*s", (int)whole->len, whole->data, (int)cut.len,
                cut.data);
        abort();
    }
    cap_buffer_free(&cut);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const cap_http_limits sets[] = {
        CAP_HTTP_LIMITS_DEFAULT, {32, 100, 4, 40, 20}, {0, 0, 0, 0, 0}};
    const char *data = (const char *)bytes;
    if (size > 4096) /* octet by octet costs its square */
        size = 4096;
    size_t *cuts = malloc((size + 1) * sizeof(*cuts));
    REQUIRE(cuts != NULL);
    /* FNV-1a: the same input, the same cuts */
    uint32_t seed = 2166136261U;
    for (size_t i = 0; i < size; i++)
        seed = (seed ^ bytes[i]) * 16777619U;
    for (size_t set = 0; set < sizeof(sets) / sizeof(sets[0]); set++) {
        cap_buffer whole = {0};
        h1_trace(&whole, data, size, NULL, 0, &sets[set]);
        for (int round = 0; round < 3; round++) {
            size_t n = 0;
            for (size_t at = 0; at <= size; n++) {
                cuts[n] = at;
                seed = seed * 1664525U + 1013904223U;
                at += round == 0 ? 1 : 1 + (seed >> 16) % (round == 1 ? 8 : 200);
            }
            compare(&whole, data, size, cuts, n, &sets[set]);
        }
        cap_buffer_free(&whole);
    }
    free(cuts);
    return 0;
}

#ifdef REPLAY
int
main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (f == NULL) {
            perror(argv[i]);
            return 1;
        }
        static uint8_t data[1 << 20];
        size_t n = fread(data, 1, sizeof(data), f);
        fclose(f);
        uint8_t *copy = malloc(n > 0 ? n : 1);
        REQUIRE(copy != NULL);
        memcpy(copy, data, n);
        LLVMFuzzerTestOneInput(copy, n);
        free(copy);
    }
    return 0;
}
#endif
