/*
 * Records of stacks (../recorder/stacks.c).
 */
#define _GNU_SOURCE
#include "host.h"

#include <stdlib.h>
#include <string.h>

bool host_records_stacks;
/* A thread that finds it set goes without a number: nothing waits. */
static bool is_adding;

void stacks_begin(void)
{
    host_records_stacks = getenv(USERDMA_ENV_OBSERVE_STACKS) != NULL;
}

/* The child's stacks have their own numbers: it is another process for the observer. */
void stacks_in_child(void)
{
    stacks_forget();
    is_adding = false;
}

bool stacks_are_current(void)
{
    return true;
}

uint32_t stack_define(const struct stack *stack)
{
    char text[USERDMA_OBSERVE_MAX_TEXT_BYTES];
    struct {
        struct userdma_record record;
        char text[];
    } *made = NULL;
    stack_write_frames(stack, text, sizeof text);
    const size_t length = strlen(text);
    if (__atomic_exchange_n(&is_adding, true, __ATOMIC_ACQUIRE))
        return 0;
    uint32_t number = stacks_find(stack->hash);
    const uint32_t next = number == 0 ? stacks_next() : 0;
    if (next != 0 && (made = record_begin(USERDMA_RECORD_STACK, sizeof *made + length))) {
        number = made->record.stack = next;
        memcpy(made->text, text, length);
        record_end(made, sizeof *made + length);
        stacks_add(stack->hash, number);
    }
    __atomic_store_n(&is_adding, false, __ATOMIC_RELEASE);
    return number;
}
