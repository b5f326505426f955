/*
 * Where a thread is that makes no calls: it gets a signal, of `userdma check` (src/cli/waits/loops.ts), and writes its
 * stack and registers into the wait table (struct userdma_wait_sample). Not if the program handles the signal itself.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "../recorder/orders.h"
#include "requests.h"

/* Programs hardly use it: real-time signals are taken from the lowest one up, and some take the highest one. */
#define SAMPLE_SIGNAL (SIGRTMAX - 1)
#define PAGE_BYTES 4096

static bool is_installed;

/* By their numbers in instructions. */
static uint64_t take_registers(uint64_t *registers, const ucontext_t *context)
{
#if defined(__x86_64__)
    static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    for (unsigned i = 0; i < sizeof order / sizeof order[0]; i++)
        registers[i] = (uint64_t)context->uc_mcontext.gregs[order[i]];
    return (uint64_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    memcpy(registers, context->uc_mcontext.regs, sizeof context->uc_mcontext.regs);
    registers[31] = context->uc_mcontext.sp;
    return context->uc_mcontext.pc;
#else
    (void)registers;
    (void)context;
    return 0;
#endif
}

static void on_sample(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    const int saved = errno;
    struct userdma_wait_sample *sample = waiting_sample();
    if (sample) {
        uint64_t registers[USERDMA_WAIT_TABLE_SAMPLE_REGISTERS] = {0};
        sample->pc = take_registers(registers, context);
        memcpy(sample->registers, registers, sizeof registers);
        /* What follows on the next page may not be readable. */
        const size_t rest = PAGE_BYTES - sample->pc % PAGE_BYTES;
        memset(sample->code, 0, sizeof sample->code);
        if (sample->pc != 0)
            memcpy(sample->code, (const void *)(uintptr_t)sample->pc, rest < sizeof sample->code ? rest : sizeof sample->code);
        struct stack stack = {.depth = 0};
        if (unwind_is_ready())
            crashes_take_stack(&stack, context);
        if (stack.depth == 0)
            stack.frames[stack.depth++] = (char *)(uintptr_t)sample->pc + 1;
        sample->depth = stack.depth < USERDMA_WAIT_TABLE_FRAMES ? stack.depth : USERDMA_WAIT_TABLE_FRAMES;
        memcpy(sample->frames, stack.frames, sample->depth * sizeof stack.frames[0]);
        __atomic_store_n(&sample->thread, (uint32_t)threads_own(), __ATOMIC_RELEASE);
    }
    errno = saved;
}

uint32_t samples_signal(void)
{
    static const struct sigaction take = {.sa_sigaction = on_sample, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    struct sigaction present;
    if (!is_installed && sigaction(SAMPLE_SIGNAL, NULL, &present) == 0 && present.sa_handler == SIG_DFL)
        is_installed = sigaction(SAMPLE_SIGNAL, &take, NULL) == 0;
    return is_installed ? (uint32_t)SAMPLE_SIGNAL : 0;
}

void userdma_handles_signal(int signal)
{
    if (signal != SAMPLE_SIGNAL || !is_installed)
        return;
    is_installed = false;
    waiting_no_samples();
}
