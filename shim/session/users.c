/*
 * Users by number, for messages. In a user namespace, a number may mean another user than for the daemon.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <stdio.h>
#include <stdlib.h>

/* The text of a small file; empty if the file cannot be read. */
static void read_small(const char *path, char *text, size_t size)
{
    const int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    const ssize_t length = fd < 0 ? 0 : REAL(read)(fd, text, size - 1);
    if (fd >= 0)
        REAL(close)(fd);
    text[length > 0 ? length : 0] = '\0';
}

/* Whether `user` is overflowuid ("nobody"), which stands for all users that this user namespace does not map. */
static bool is_unmapped(uid_t user)
{
    char map[1024], overflow[16];
    unsigned inside, outside, count;
    read_small("/proc/self/uid_map", map, sizeof map);
    /* The initial namespace maps all users; an empty map (sscanf fails) maps none. */
    if (sscanf(map, "%u %u %u", &inside, &outside, &count) == 3 && count == UINT32_MAX)
        return false;
    read_small("/proc/sys/kernel/overflowuid", overflow, sizeof overflow);
    return overflow[0] != '\0' && (uid_t)strtoul(overflow, NULL, 10) == user;
}

void user_text(uid_t user, char *text, size_t size)
{
    if (is_unmapped(user))
        snprintf(text, size, "a user outside this user namespace");
    else
        snprintf(text, size, "user %u", (unsigned)user);
}

uid_t outer_user(uid_t user)
{
    char map[1024];
    unsigned inside, outside, count;
    int taken;
    read_small("/proc/self/uid_map", map, sizeof map);
    for (const char *line = map; sscanf(line, "%u %u %u%n", &inside, &outside, &count, &taken) == 3; line += taken)
        if (user >= inside && user - inside < count)
            return user - inside + outside;
    return user;
}
