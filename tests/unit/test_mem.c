#include "base/mem.h"

#include <pthread.h>
#include <stdbool.h>

#include "check.h"

static void
test_blocks_are_counted(void)
{
    long before = cap_mem_blocks();
    char *a = cap_malloc(10);
    char *b = cap_calloc(10, 10);
    REQUIRE(a != NULL && b != NULL && b[0] == 0 && b[99] == 0);
    REQUIRE(cap_mem_blocks() == before + 2);
    a = cap_realloc(a, 1000);
    REQUIRE(a != NULL && cap_mem_blocks() == before + 2);
    char *c = cap_realloc(NULL, 5);
    REQUIRE(c != NULL && cap_mem_blocks() == before + 3);
    cap_free(a);
    cap_free(b);
    cap_free(c);
    cap_free(NULL);
    REQUIRE(cap_mem_blocks() == before);
}

static bool
works(void)
{
    void *p = cap_malloc(1);
    cap_free(p);
    return p != NULL;
}

static void
test_the_nth_allocation_fails(void)
{
    cap_mem_fail(1, 1);
    REQUIRE(!works() && works() && works());
    cap_mem_fail(3, 2);
    REQUIRE(works() && works() && !works() && !works() && works() && works());
    cap_mem_fail(2, 100);
    REQUIRE(works() && !works());
    cap_mem_fail(0, 0);
    REQUIRE(works());
    void *p = cap_malloc(4);
    cap_mem_fail(1, 3);
    REQUIRE(cap_realloc(p, 100) == NULL && cap_calloc(1, 1) == NULL && cap_malloc(1) == NULL);
    REQUIRE(works());
    cap_free(p);
}

static void *
allocate(void *unused)
{
    (void)unused;
    for (int i = 0; i < 10000; i++) {
        void *p = cap_malloc(16);
        REQUIRE(p != NULL);
        cap_free(p);
    }
    return NULL;
}

static void
test_threads_lose_no_count(void)
{
    long before = cap_mem_blocks();
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_create(&t[i], NULL, allocate, NULL) == 0);
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_join(t[i], NULL) == 0);
    REQUIRE(cap_mem_blocks() == before);
}

int
main(void)
{
    test_blocks_are_counted();
    test_the_nth_allocation_fails();
    test_threads_lose_no_count();
    return 0;
}
