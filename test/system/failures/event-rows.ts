/*
 * What happens to a device, connection or process, and where Linux tells it: the rows of
 * docs/reference/event-orders.md. Lines are those of Linux 6.12.117, below drivers/infiniband. `rxe`: what
 * test/programs/failures/witness has printed between two guests with Linux 6.12.118 and rdma_rxe.
 */
import type { Running, TestDaemon } from '../programs.ts'

export interface Witness {
  readonly running: Running
  /** Writes a command, or a word that is printed. */
  say(word: string): void
}

export interface Stage {
  /** On the host to which things happen. */
  readonly client: Witness
  /** Its peer; absent: without a connection. */
  readonly server?: Witness
  readonly daemon: TestDaemon
  readonly peer: TestDaemon
  readonly device: string
  /** `ip` in the namespace of the client. */
  ip(...words: readonly string[]): void
  peerIp(...words: readonly string[]): void
  /** `userdma` with the daemon of the client, or of the peer. */
  userdma(daemon: TestDaemon, ...words: readonly string[]): Promise<void>
}

interface Source {
  /** A file below drivers/infiniband, and a function. */
  readonly file: string
  readonly function: string
  readonly line: number
  readonly does: string
}

export interface EventRow {
  readonly title: string
  readonly does: string
  /** Without a connection manager too. */
  readonly isOfDevice?: true
  readonly timers?: string
  run(stage: Stage): Promise<void>
  readonly linux: readonly Source[]
  /** What the guest has shown; absent: read in the source only. */
  readonly rxe?: readonly string[]
  readonly differs?: string
}

const at = (file: string, name: string, line: number, does: string): Source => ({ file, function: name, line, does })

const MAC = '02:00:00:99:00:07'

const address = async ({ client, ip }: Stage): Promise<void> => {
  client.say('-- leaves')
  ip('address', 'delete', '10.99.0.1/24', 'dev', 'v0')
  await client.running.printed(/-- leaves\n(?:.*\n)*sysfs ACTIVE 0=local\n/)
  client.say('-- returns')
  ip('address', 'add', '10.99.0.1/24', 'dev', 'v0')
  await client.running.printed(/-- returns\n(?:.*\n)*sysfs ACTIVE 0=local \d=v4\n/)
}

/** Both ends are told. */
const disconnected = async ({ client, server }: Stage): Promise<void> => {
  client.say('disconnect')
  await server?.running.printed(/cm DISCONNECTED/)
  server?.say('disconnect')
  for (const one of [client, server]) await one?.running.printed(/cm TIMEWAIT_EXIT/)
}

export const rows: readonly EventRow[] = [
  {
    title: 'Link down and up',
    does: '`ip link set v0 down` at the client, a SEND meanwhile, and `up`',
    isOfDevice: true,
    async run({ client, server, ip }) {
      client.say('-- down')
      ip('link', 'set', 'v0', 'down')
      await client.running.printed(/async port error\n/)
      await client.running.printed(/sysfs DOWN/)
      await server?.running.printed(/async port error\n/)
      await server?.running.printed(/sysfs DOWN/)
      if (server !== undefined) client.say('send')
      client.say('-- up')
      ip('link', 'set', 'v0', 'up')
      await client.running.printed(/async port active\n/)
      await client.running.printed(/-- up\n(?:.*\n)*sysfs ACTIVE/)
      await server?.running.printed(/async port active\n/)
      await server?.running.printed(/sysfs DOWN.*\n(?:.*\n)*sysfs ACTIVE/)
      if (server !== undefined) await client.running.printed(/completion SEND/)
      await server?.running.printed(/completion RECV/)
    },
    linux: [
      at(
        'sw/rxe/rxe_net.c',
        'rxe_notify',
        599,
        'NETDEV_DOWN: PORT_ERR; NETDEV_UP: PORT_ACTIVE, NETDEV_CHANGE: PORT_ACTIVE again',
      ),
      at('hw/mlx5/main.c', 'mlx5_netdev_event', 202, 'PORT_ERR, PORT_ACTIVE, once each'),
      at('hw/efa/efa_verbs.c', 'efa_query_port', 287, 'the port of EFA is always ACTIVE'),
      at('sw/rxe/rxe_net.c', 'prepare4', 279, 'no route: the request fails'),
      at('sw/rxe/rxe_req.c', 'rxe_requester', 808, 'the queue pair goes to ERR'),
    ],
    rxe: [
      'async: port error, port active, port active',
      'sysfs: DOWN, ACTIVE; the GIDs of IPv4 stay',
      'completions of the client: SEND and RECV with WR_FLUSH_ERR, at once',
    ],
    differs:
      'On rxe a request that is sent while the interface has no route ends its queue pair at once. Here, as on adapters, it is repeated, and succeeds if retries last longer than the outage. rxe raises PORT_ACTIVE twice, here it comes once. The port of EFA goes down too, so that programs can be tried.',
  },
  {
    title: 'Address leaves and returns',
    does: "the client's address is deleted, added again; its connection holds the GID",
    run: address,
    linux: [
      at('core/roce_gid_mgmt.c', 'addr_event', 839, 'each address that leaves or comes is work of its own'),
      at(
        'core/cache.c',
        'del_gid',
        382,
        'PENDING_DEL: the index stays taken while a queue pair or address handle holds it',
      ),
      at('core/cache.c', 'dispatch_gid_change_event', 124, 'GID_CHANGE, once for each'),
      at(
        'core/cache.c',
        'rdma_read_gid_attr_ndev_rcu',
        1355,
        'the entry of the old index is not valid: rxe sends nothing more from it',
      ),
    ],
    rxe: [
      'async: GID table change when it leaves, and when it returns',
      'sysfs: the GID has index 1 before, and index 2 afterwards',
      'completions of the client: a SEND afterwards has WR_FLUSH_ERR',
    ],
    differs:
      'On rxe a queue pair that holds an entry of the GID table that has left cannot send any more, also when the address is there again. Here, as on adapters, which keep the addresses in the queue pair, it goes on.',
  },
  {
    title: "The device's MAC changes",
    does: '`ip link set v0 address` at the client, and a SEND of the peer',
    async run({ client, server, ip, peerIp }) {
      ip('link', 'set', 'v0', 'address', MAC)
      await client.running.printed(/(?:async GID table change\n(?:.*\n)*){3}/)
      await client.running.printed(/sysfs ACTIVE 0=local 2=v4\n/)
      // As by a gratuitous ARP, which Linux sends only if asked to.
      peerIp('neighbour', 'flush', 'dev', 'v0')
      server?.say('send')
      await client.running.printed(/completion RECV/)
      await server?.running.printed(/completion SEND/)
    },
    linux: [
      at(
        'core/roce_gid_mgmt.c',
        'netdevice_event',
        797,
        'NETDEV_CHANGEADDR: all GIDs of the interface leave, the default GIDs and those of its addresses return',
      ),
      at('core/cma.c', 'cma_netdev_change', 5121, 'ADDR_CHANGE, only when a bond fails over'),
    ],
    rxe: [
      'async: GID table change four times: all GIDs leave; the default one, that of IPv4, and that of the old link-local address return',
      'completions of the client: RECV success: rxe finds the MAC by the route of each packet',
    ],
  },
  {
    title: "A neighbour's MAC changes",
    does: '`ip link set v0 address` at the peer, which the client learns by ARP at its next SEND',
    async run({ client, server, ip, peerIp }) {
      peerIp('link', 'set', 'v0', 'address', MAC)
      await server?.running.printed(/(?:async GID table change\n(?:.*\n)*){3}/)
      await server?.running.printed(/sysfs ACTIVE 0=local 2=v4\n/)
      ip('neighbour', 'flush', 'dev', 'v0')
      client.say('send')
      await client.running.printed(/cm UNREACHABLE/)
      await client.running.printed(/completion SEND/)
      await server?.running.printed(/completion RECV/)
    },
    linux: [
      at(
        'core/cma.c',
        'cma_netevent_callback',
        5202,
        'UNREACHABLE with -ETIMEDOUT (-110) for identifiers that have resolved a route to the neighbour, again with each update of it; not for accepted ones',
      ),
    ],
    differs: 'UNREACHABLE comes once for each MAC.',
  },
  {
    title: 'Device removed, and added again',
    does: '`userdma device remove` (on Linux `rdma link delete`), and `add`',
    isOfDevice: true,
    async run({ client, server, daemon, device, userdma }) {
      client.say('-- removed')
      await userdma(daemon, 'device', 'remove', device.split('@')[0]!)
      await client.running.printed(/async local catastrophic error/)
      client.say('-- added')
      await userdma(daemon, 'device', 'add', device)
      // EFA's ports, without rdma_cm, belong to no interface.
      await client.running.printed(server ? /netlink NETDEV_ATTACH/ : /netlink REGISTER/)
      await client.running.printed(/-- added\n(?:.*\n)*sysfs ACTIVE/)
    },
    linux: [
      at('core/cma.c', 'cma_process_remove', 5295, 'each identifier gets DEVICE_REMOVAL, first'),
      at('core/ucma.c', 'ucma_event_handler', 359, 'and is closed: later calls on it return ENXIO'),
      at(
        'core/uverbs_main.c',
        'ib_uverbs_remove_one',
        1261,
        'then contexts: DEVICE_FATAL and EIO if the driver can disassociate them (mlx5); of rxe and EFA the removal waits until programs have closed the device',
      ),
      at('core/uverbs_std_types_async_fd.c', 'uverbs_async_event_destroy_uobj', 31, 'DEVICE_FATAL is the last event'),
      at('core/device.c', '__ib_unregister_device', 1536, 'netlink UNREGISTER'),
      at(
        'core/device.c',
        'ib_device_notify_register',
        1375,
        'netlink REGISTER, and NETDEV_ATTACH of ports with an interface',
      ),
    ],
    rxe: [
      'rdma_cm: DEVICE_REMOVAL at the client; DISCONNECTED at the peer when the client has destroyed its identifier',
      'async: nothing; `rdma link delete` returns when the client has closed the device',
    ],
    differs:
      'The removal never waits for programs, on rxe and EFA too: contexts are disassociated as those of mlx5, and programs get DEVICE_FATAL.',
  },
  {
    title: 'Device error',
    does: 'the fault rule `fatal=qps` at a SEND of the client',
    async run({ client, server, daemon, userdma }) {
      await userdma(daemon, 'fault', 'set', 'completion=SEND,nth=1,fatal=qps')
      client.say('send')
      await client.running.printed(/async local catastrophic error/)
      await client.running.printed(/completion RECV/)
      await server?.running.printed(/completion RECV/)
    },
    linux: [
      at(
        'hw/mlx5/main.c',
        'mlx5_ib_handle_sys_error_event',
        2926,
        'the requests of all queue pairs are flushed, then DEVICE_FATAL; rxe and EFA raise none',
      ),
    ],
  },
  {
    title: 'The daemon ends',
    does: 'SIGKILL. On Linux nothing is like it',
    isOfDevice: true,
    async run({ client, daemon }) {
      daemon.running.child.kill('SIGKILL')
      await daemon.running.ended.catch(() => {})
      await client.running.printed(/sysfs no device/)
    },
    linux: [],
  },
  {
    title: 'Disconnect',
    does: 'rdma_disconnect at the client, and at the peer when it is told',
    run: disconnected,
    timers: '0.1',
    linux: [
      at(
        'core/cma.c',
        'rdma_disconnect',
        4787,
        'the queue pair goes to ERR, then DREQ is sent; the answer to a DREQ is DREP',
      ),
      at('core/cma.c', 'cma_ib_handler', 2181, 'DREQ received, and DREP received: DISCONNECTED with status 0'),
      at('core/cm.c', 'cm_timewait_handler', 3444, 'TIMEWAIT_EXIT'),
    ],
    rxe: [
      'rdma_cm: DISCONNECTED 0, TIMEWAIT_EXIT 0 at both ends',
      'completions: RECV with WR_FLUSH_ERR at the end of its own rdma_disconnect',
    ],
  },
  {
    title: 'DREQ is lost',
    does: 'all DREQs to the peer are lost; times of retries are a twentieth',
    timers: '0.05',
    async run({ client, peer, userdma }) {
      await userdma(peer, 'fault', 'set', 'cm=DREQ,drop=1')
      client.say('disconnect')
      await client.running.printed(/cm TIMEWAIT_EXIT/)
    },
    linux: [
      at('core/cm.c', 'cm_process_send_error', 3772, 'DREQ_ERROR when the repetitions have ended'),
      at('core/cma.c', 'cma_ib_handler', 2223, 'DISCONNECTED with -ETIMEDOUT (-110); the peer is told nothing'),
    ],
  },
  {
    title: 'DREQ is late',
    does: 'DREQ reaches the peer 300 ms late',
    timers: '0.1',
    async run(stage) {
      await stage.userdma(stage.peer, 'fault', 'set', 'cm=DREQ,delay=300ms')
      await disconnected(stage)
    },
    linux: [
      at(
        'core/cm.c',
        'cm_dreq_handler',
        2820,
        'as a DREQ in time; a DREQ to a connection that is unknown is answered by DREP',
      ),
    ],
  },
  {
    title: 'DREQ comes twice',
    does: 'the network repeats DREQ',
    timers: '0.1',
    async run(stage) {
      await stage.userdma(stage.peer, 'fault', 'set', 'cm=DREQ,dup=1')
      await disconnected(stage)
    },
    linux: [
      at(
        'core/cm.c',
        'cm_dreq_handler',
        2820,
        'in DREQ_RCVD and TIMEWAIT the second is answered again, and raises nothing',
      ),
    ],
  },
  {
    title: 'The peer is killed',
    does: 'SIGKILL to the program at the other end',
    async run({ client, server }) {
      server?.running.child.kill('SIGKILL')
      await client.running.printed(/cm DISCONNECTED/)
    },
    linux: [
      at('core/ucma.c', 'ucma_close', 1794, 'the identifiers of the process are destroyed'),
      at('core/cma.c', '_destroy_id', 2053, 'which sends DREQ'),
      at('core/uverbs_main.c', 'ib_uverbs_close', 1015, 'and its queue pairs: requests to them have no answer'),
    ],
    rxe: ['rdma_cm: DISCONNECTED 0 at the client'],
  },
]
