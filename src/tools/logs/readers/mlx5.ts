/*
 * mlx5: CQEs with errors that libmlx5, the kernel and DPDK print in hexadecimal, and what the kernel driver says. No
 * dump is printed for flushes and used-up retries, so that a log without one may have had an error.
 */
import type { Reader } from '../shape.ts'

const CORE = 'Linux 6.1.192 drivers/net/ethernet/mellanox/mlx5/core'
const IB = 'Linux 6.1.192 drivers/infiniband/hw/mlx5'
/** What the driver's messages begin with: device, PCI function, and in most the C function, line and process. */
const CORE_LINE = 'mlx5_core (?<bdf>[\\w:.]{1,40}\\w)'

export const mlx5: Reader = {
  name: 'libmlx5',
  shapes: [
    {
      id: 'mlx5-dump',
      words: ['got completion with error:'],
      form: /mlx5: \S+ got completion with error:/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      family: 'mlx5',
      dump: 'words',
      source: 'linux-rdma/rdma-core 691953d8 providers/mlx5/cq.c:891',
      sample: [
        'mlx5: node1: got completion with error:',
        '00000000 00000000 00000000 00000000',
        '00000000 00000000 00000000 00000000',
        '00000001 00000000 00000000 00000000',
        '00000000 00008813 08006214 0000f6d2',
      ],
      gives: { syndrome: '13', vendor: '88', qpn: '6214', request: 'WRITE', wqe: '0', hwSyndrome: '0/0' },
    },
    {
      id: 'mlx5-dpdk',
      words: ['Unexpected CQE error syndrome '],
      form: /Unexpected CQE error syndrome 0x(?<syndrome>\w+) CQN = (?<text>\w+) SQN = (?<qpn>\w+) wqe_counter = (?<wqe>\w+)/g,
      role: 'failure',
      kind: 'completion',
      family: 'mlx5',
      source: 'DPDK 23.11 drivers/net/mlx5/mlx5_tx.c (unverified)',
      sample: [
        'mlx5_common: Unexpected CQE error syndrome 0x04 CQN = 1035 SQN = 4242 wqe_counter = 7 wq_ci = 9 cq_ci = 3',
      ],
      gives: { syndrome: '04', qpn: '4242', wqe: '7' },
    },
    {
      id: 'mlx5-dpdk-dump',
      words: ['MLX5 Error CQE:'],
      form: /MLX5 Error CQE: at \[\S+\], len=64/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      family: 'mlx5',
      dump: 'bytes',
      source: 'DPDK 23.11 drivers/net/mlx5/mlx5_rxtx.c (unverified)',
      sample: [
        'MLX5 Error CQE: at [0x17f2a0], len=64',
        '00000000: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 | ................',
        '00000010: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 | ................',
        '00000020: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 | ................',
        '00000030: 00 00 00 00 9D 00 53 04 0A 00 10 92 00 07 00 D2 | ......S.........',
      ],
      gives: { syndrome: '4', vendor: '53', qpn: '1092', request: 'SEND', wqe: '7', hwSyndrome: '0/157' },
    },
  ],
}

export const mlx5Kernel: Reader = {
  name: 'mlx5 driver',
  shapes: [
    {
      id: 'mlx5-command',
      words: [') failed, status '],
      form: new RegExp(
        `${CORE_LINE}:? ?[\\w ]*?\\b(?:mlx5_cmd_\\w+:\\d+:\\(pid \\d+\\): )?(?<command>\\w+)\\(0x\\w+\\) op_mod\\(0x\\w+\\) failed, status [^(]{1,60}\\(0x(?<commandStatus>\\w+)\\), syndrome \\(0x(?<syndrome>\\w+)\\)(?:, err\\((?<errno>-?\\d+)\\))?`,
        'g',
      ),
      role: 'failure',
      kind: 'command',
      family: 'mlx5',
      source: `${CORE}/cmd.c:808; Linux 5.10 mlx5_cmd_check`,
      sample: [
        'Dec 02 09:56:04 node7 kernel: mlx5_core 0000:5d:00.0: mlx5_cmd_out_err:808:(pid 4242): CREATE_MKEY(0x200) op_mod(0x0) failed, status bad parameter(0x3), syndrome (0x35e6ec), err(-22)',
      ],
      gives: { bdf: '0000:5d:00.0', command: 'CREATE_MKEY', commandStatus: '3', syndrome: '35e6ec', errno: '-22' },
    },
    {
      id: 'mlx5-command-timeout',
      words: [
        'No done completion',
        'Will cause a leak of a command resource',
        'timed out while waiting for a slot',
        'canceled on out of queue timeout',
        'timeout while waiting for command semaphore',
      ],
      form: new RegExp(
        `${CORE_LINE}:.{0,80}?(?:cmd\\[\\d+\\]: )?(?<command>[A-Z]\\w+)\\(0x\\w+\\) (?:Async, )?(?:No done completion|timeout\\. Will cause|timed out while|canceled on|timeout while)`,
        'g',
      ),
      role: 'failure',
      kind: 'command-timeout',
      family: 'mlx5',
      source: `${CORE}/cmd.c:937, 983, 1146, 1176`,
      sample: [
        '[ 4242.123456] mlx5_core 0000:5d:00.0: wait_func:1176:(pid 4242): CREATE_QP(0x500) timeout. Will cause a leak of a command resource',
      ],
      gives: { bdf: '0000:5d:00.0', command: 'CREATE_QP' },
    },
    {
      id: 'mlx5-health',
      words: ['Health issue observed, '],
      form: new RegExp(
        `${CORE_LINE}:.{0,80}?Health issue observed, (?<text>[^,]{1,60}), severity\\((?<value>-?\\w+)\\)`,
        'g',
      ),
      role: 'failure',
      kind: 'health',
      family: 'mlx5',
      source: `${CORE}/health.c:441`,
      sample: [
        '[ 4242.123456] mlx5_core 0000:5d:00.0: print_health_info:441:(pid 0): Health issue observed, unrecoverable hardware error, severity(3) ERROR:',
      ],
      gives: { bdf: '0000:5d:00.0', text: 'unrecoverable hardware error', value: '3' },
    },
    {
      id: 'mlx5-health-syndrome',
      words: ['): synd 0x', ': synd 0x'],
      form: new RegExp(`${CORE_LINE}:.{0,80}?synd 0x(?<syndrome>\\w+): (?<text>[\\w ]+)`, 'g'),
      role: 'failure',
      kind: 'health',
      family: 'mlx5',
      source: `${CORE}/health.c:457`,
      sample: [
        '[ 4242.123457] mlx5_core 0000:5d:00.0: print_health_info:457:(pid 0): synd 0x8: unrecoverable hardware error',
      ],
      gives: { bdf: '0000:5d:00.0', syndrome: '8', text: 'unrecoverable hardware error' },
    },
    {
      id: 'mlx5-health-gone',
      words: [
        'health compromised - reached miss count',
        'PCI slot is unavailable',
        'health recovery flow aborted',
        'health recovery failed',
        'Driver is in error state. Unloading',
      ],
      form: new RegExp(
        `${CORE_LINE}:.{0,80}?(?<text>(?:device's )?health (?:compromised - reached miss count|recovery flow aborted|recovery failed)|PCI slot is unavailable|Driver is in error state)`,
        'g',
      ),
      role: 'failure',
      kind: 'device',
      family: 'mlx5',
      source: `${CORE}/health.c:350, 355, 432, 713, 852`,
      sample: [
        "[ 4242.123456] mlx5_core 0000:5d:00.0: poll_health:852:(pid 0): device's health compromised - reached miss count",
      ],
      gives: { bdf: '0000:5d:00.0', text: "device's health compromised - reached miss count" },
    },
    {
      id: 'mlx5-fatal',
      words: ['Fatal error '],
      form: new RegExp(`${CORE_LINE}:.{0,80}?Fatal error (?<value>\\d+) detected`, 'g'),
      role: 'failure',
      kind: 'device',
      family: 'mlx5',
      source: `${CORE}/health.c:836`,
      sample: ['[ 4242.123456] mlx5_core 0000:5d:00.0: poll_health:836:(pid 0): Fatal error 3 detected'],
      gives: { bdf: '0000:5d:00.0', value: '3' },
    },
    {
      id: 'mlx5-cq-error',
      words: ['CQ error on CQN 0x'],
      form: new RegExp(`${CORE_LINE}:.{0,80}?CQ error on CQN 0x\\w+, syndrome 0x(?<syndrome>\\w+)`, 'g'),
      role: 'failure',
      kind: 'event',
      fixed: { event: 'CQ_ERR' },
      family: 'mlx5',
      source: `${CORE}/eq.c:505`,
      sample: [
        '[ 4242.123456] mlx5_core 0000:5d:00.0: cq_err_event_notifier:505:(pid 0): CQ error on CQN 0x40b, syndrome 0x1',
      ],
      gives: { bdf: '0000:5d:00.0', syndrome: '1', event: 'CQ_ERR' },
    },
    {
      id: 'mlx5-module',
      words: ['Port module event'],
      form: new RegExp(
        `${CORE_LINE}:.{0,80}?Port module event(?:\\[error\\])?: module (?<port>\\d+), (?<text>Cable (?:unplugged|error|disabled)[\\w ,]*|\\w*[Pp]ower[\\w ,]*|High [\\w ,]*)`,
        'g',
      ),
      role: 'sign',
      source: `${CORE}/events.c:258, 262`,
      sample: ['[ 4242.123456] mlx5_core 0000:5d:00.0: Port module event: module 0, Cable unplugged'],
      gives: { bdf: '0000:5d:00.0', port: '0', text: 'Cable unplugged' },
    },
    {
      id: 'mlx5-link',
      words: ['Link down', 'link down'],
      form: /mlx5_core (?<bdf>[\w:.]{1,40}\w) (?<link>\w+): Link down/g,
      role: 'sign',
      fixed: { text: 'Link down' },
      source: `${CORE}/en_main.c (Linux 6.1)`,
      sample: ['[ 4242.123456] mlx5_core 0000:5d:00.0 ens3f0np0: Link down'],
      gives: { bdf: '0000:5d:00.0', link: 'ens3f0np0', text: 'Link down' },
    },
    {
      id: 'mlx5-temperature',
      words: ['High temperature on sensors'],
      form: new RegExp(`${CORE_LINE}:.{0,80}?High temperature on sensors`, 'g'),
      role: 'sign',
      fixed: { text: 'the temperature is too high' },
      source: `${CORE}/events.c:174`,
      sample: [
        '[ 4242.123456] mlx5_core 0000:5d:00.0: temp_warn:174:(pid 0): High temperature on sensors with bit set 0 1',
      ],
      gives: { bdf: '0000:5d:00.0', text: 'the temperature is too high' },
    },
    {
      id: 'mlx5e-cqe',
      words: ['vendor syndrome 0x'],
      form: /Error cqe on cqn 0x\w+, ci 0x\w+, (?:qn|sqn) 0x(?<qpn>\w+), opcode 0x(?<value>\w+), syndrome 0x(?<syndrome>\w+), vendor syndrome 0x(?<vendor>\w+)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      family: 'mlx5',
      source: `${CORE}/en/txrx.h:349`,
      sample: [
        '[ 4242.123456] mlx5_core 0000:5d:00.0 ens3f0np0: Error cqe on cqn 0x40b, ci 0x1, qn 0x1092, opcode 0xd, syndrome 0x2, vendor syndrome 0x68',
      ],
      gives: { qpn: '1092', syndrome: '2', vendor: '68' },
    },
    {
      id: 'mlx5-ib-poll',
      words: ['vendor syndrome 0x'],
      form: /(?<device>[\w.-]{1,64}): mlx5_poll_one:\d+:\(pid \d+\): syndrome 0x(?<syndrome>\w+), vendor syndrome 0x(?<vendor>\w+)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      family: 'mlx5',
      source: `${IB}/cq.c:530`,
      sample: ['[ 4242.123456] infiniband rocep33s0f0: mlx5_poll_one:530:(pid 0): syndrome 0x13, vendor syndrome 0x88'],
      gives: { device: 'rocep33s0f0', syndrome: '13', vendor: '88' },
    },
    {
      id: 'mlx5-ib-wc',
      words: ['): WC error: '],
      form: /(?:infiniband )?(?<device>[\w.-]{1,64}): \w+:\d+:\(pid \d+\): WC error: (?<status>\d+), Message: (?<text>[\w ]+)/g,
      role: 'failure',
      kind: 'completion',
      family: 'mlx5',
      source: `${IB}/cq.c:333`,
      sample: [
        '[ 4242.123456] infiniband mlx5_3: mlx5_handle_error_cqe:333:(pid 0): WC error: 10, Message: remote access error',
      ],
      gives: { device: 'mlx5_3', status: '10' },
    },
    {
      id: 'mlx5-ib-dump',
      words: ['dump error cqe'],
      form: /(?:infiniband )?(?<device>[\w.-]{1,64}): dump_cqe:\d+:\(pid \d+\): dump error cqe/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      family: 'mlx5',
      dump: 'bytes',
      source: `${IB}/cq.c dump_cqe; mlx5/core/wq.c:89`,
      sample: [
        '[ 4242.123457] infiniband mlx5_3: dump_cqe:272:(pid 0): dump error cqe',
        '[ 4242.123458] 00000000: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00',
        '[ 4242.123459] 00000010: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00',
        '[ 4242.123460] 00000020: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00',
        '[ 4242.123461] 00000030: 00 00 00 00 00 00 88 13 08 00 62 14 00 00 f6 d2',
      ],
      gives: { device: 'mlx5_3', syndrome: '13', vendor: '88', qpn: '6214', request: 'WRITE', wqe: '0' },
    },
  ],
}
