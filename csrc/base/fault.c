#include "base/fault.h"

#ifdef CAP_FAULTS

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_bool armed;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char *before; /* "\nfile:line\nfile:line\n" of earlier processes; never freed */
static const char *seen_path;

static void
begin(void)
{
    atomic_store(&armed, getenv("CAPICORN_FAULTS_ARMED") != NULL);
    seen_path = getenv("CAPICORN_FAULTS_SEEN");
    FILE *f = seen_path != NULL ? fopen(seen_path, "r") : NULL;
    size_t len = 1, size = 1 << 20;
    before = calloc(1, size + 1);
    if (before == NULL)
        abort();
    before[0] = '\n';
    if (f != NULL) {
        len += fread(before + 1, 1, size - 1, f);
        fclose(f);
    }
    before[len] = 0;
}

void
cap_fault_arm(bool on)
{
    pthread_once(&once, begin);
    atomic_store(&armed, on);
}

bool
cap_fault_armed(void)
{
    return atomic_load(&armed);
}

static int
name_of(const cap_fault_site *site, char *out, size_t size)
{
    /* From "csrc/" on, wherever it was compiled; the NUL is not counted. */
    const char *file = strstr(site->file, "csrc/");
    return snprintf(out, size, "\n%s:%d\n", file != NULL ? file : site->file, site->line);
}

bool
cap_fault_hit(cap_fault_site *site)
{
    pthread_once(&once, begin);
    if (!atomic_load_explicit(&armed, memory_order_relaxed) || atomic_load(&site->spent))
        return false;
    char name[256];
    int len = name_of(site, name, sizeof name);
    if (!atomic_exchange(&site->known, true) && strstr(before, name) != NULL)
        atomic_store(&site->spent, true);
    if (atomic_exchange(&site->spent, true) || !atomic_exchange(&armed, false))
        return false;
    int fd = seen_path != NULL ? open(seen_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        (void)!write(fd, name + 1, (size_t)len - 1);
        close(fd);
    }
    return true;
}

#else
typedef int cap_fault_unused; /* a translation unit is not empty */
#endif
