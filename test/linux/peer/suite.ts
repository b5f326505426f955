/*
 * Tests of userdma with a guest's Linux as the peer. A plan selects the cases.
 */
import assert from 'node:assert/strict'
import { before, describe, it, type TestContext } from 'node:test'
import { parseAddress } from '../../../src/transport/wire/address.ts'
import { EVERY_CALL } from '../../every-call.ts'
import { userlandRoot } from '../../project/catalogue/userland.ts'
import { assertOutcomes } from '../../system/failures/outcomes.ts'
import {
  type Finished,
  hasOnlyLiving,
  isEmpty,
  ownProgram,
  type Running,
  type Scope,
  startDaemon,
  suiteScope,
  type TestDaemon,
} from '../../system/programs.ts'
import { assertGoodRdmacm, finishRdmacm, listeningPort, wordsOf } from '../../system/rdmacm/rdmacm.ts'
import { inCi } from '../../tools.ts'
import {
  type ConnectionCase,
  GROUP_MESSAGES,
  groupAddress,
  groupCase,
  lossyConnectionCases,
  markedCase,
  mlx5Cases,
  type PeerCase,
  pagingCases,
} from './cases.ts'
import { GUEST, GUEST_GID, type Guest, HOST, type Kernel, startGuest, untilListeningInNamespace } from './guest.ts'

type Version = 4 | 6

interface Ends {
  readonly guest: Guest
  readonly daemon: TestDaemon
  readonly version: Version
  readonly guestServes: boolean
}

interface Pair {
  readonly server: Finished
  readonly client: Finished
}

let lastPort = 18600

/** Minimum speed of a soak, for its time limit. */
const SOAK_BYTES_PER_SECOND = 30_000

/** Packets of a soak's largest block: 64 KiB, with the path MTU of 1024 bytes. */
const SOAK_BLOCK_PACKETS = 64

/** GID index of a daemon's address. */
const HOST_GID = 1

/**
 * Runs a program at both ends. `gidOption` is the program's option for the GID index. The ends exchange their addresses
 * by TCP over IPv4.
 */
const runPair = async (
  t: Scope,
  { guest, daemon, version, guestServes }: Ends,
  programs: { readonly here: readonly string[]; readonly there: string },
  gidOption: string,
  args: readonly string[],
  limit?: number,
): Promise<Pair> => {
  const port = ++lastPort
  const options = (gid: number): string[] => ['-d', 'rxe0', gidOption, String(gid), '-p', String(port), ...args]
  const [here, ...firstArgs] = programs.here
  const hereArgs = [...firstArgs, ...options(HOST_GID)]
  const there = options(GUEST_GID[version])
  let server: Running
  let client: Running
  if (guestServes) {
    server = guest.start(t, programs.there, there, limit)
    await guest.untilListening(t, port)
    client = guest.startHere(t, here, [...hereArgs, GUEST[4]], daemon.env)
  } else {
    server = guest.startHere(t, here, hereArgs, daemon.env)
    const listens = await untilListeningInNamespace(server.child.pid ?? 0, port, server.ended)
    assert.ok(listens, `${programs.here.join(' ')} ended before it listened:\n${server.output()}`)
    client = guest.start(t, programs.there, [...there, HOST[4]], limit)
  }
  const finished = await client.ended
  if (finished.status !== 0) server.child.kill('SIGTERM')
  return { client: finished, server: await server.ended }
}

/** Runs test/programs/connections/umad_talk.c: the server answers with segmented messages. */
const exchangeMads = async (t: Scope, { guest, daemon, guestServes }: Ends): Promise<void> => {
  const program = ownProgram('umad_talk')
  const there = await guest.copy(t, program)
  const start = (isHere: boolean, ...args: readonly string[]): Running =>
    isHere ? guest.startHere(t, program, args, daemon.env) : guest.start(t, there, args)
  // The server stops at the end of its standard input.
  const serving = ['-c', `sleep 1000 | ${guestServes ? there : program} server rxe0`]
  const server = guestServes ? guest.start(t, 'sh', serving) : guest.startHere(t, 'sh', serving, daemon.env)
  await server.printed(/ready/)
  const gid = Buffer.from(parseAddress((guestServes ? GUEST : HOST)[6]) ?? []).toString('hex')
  const [retries, gidIndex] = [3, guestServes ? HOST_GID : GUEST_GID[6]]
  const runClient = async (request: string): Promise<string> => {
    const args = ['client', 'rxe0', gid, request, String(retries), String(gidIndex)]
    const { stdout, stderr } = await start(guestServes, ...args).ended
    return stdout + stderr
  }
  // 217 bytes: one more than the data of a MAD
  for (const bytes of [0, 217, 50_000]) assert.equal(await runClient(String(bytes)), `${bytes} bytes\n`)
  assert.equal(await runClient('stop'), '')
}

const assertBothGood = ({ client, server }: Pair, guestServes: boolean): void => {
  const ends = { client, server }
  for (const [name, { status, signal, stdout, stderr }] of Object.entries(ends)) {
    const isInGuest = name === 'server' ? guestServes : !guestServes
    const subject = `${name} ${isInGuest ? 'in the guest' : 'here'}`
    assert.equal(status, 0, `${subject}: status ${status}, signal ${signal}\n${stdout}${stderr}`)
    assert.doesNotMatch(stdout + stderr, /invalid data in page|Failed|Completion with error/, subject)
  }
}

const runCase = async (t: Scope, ends: Ends, { program, args }: PeerCase): Promise<void> => {
  const isPerftest = program.startsWith('ib_')
  const programArgs = isPerftest ? ['-F', ...args] : args
  const pair = await runPair(t, ends, { here: [program], there: program }, isPerftest ? '-x' : '-g', programArgs)
  assertBothGood(pair, ends.guestServes)
}

/**
 * Runs a program of test/programs at both ends; the guest's ends after `limit` seconds. `withGuestLibraries`: both ends
 * use the guest's libibverbs, because the host's is too old.
 */
const runOwn = async (
  t: Scope,
  ends: Ends,
  {
    name,
    limit,
    withGuestLibraries = false,
    argsHere = [],
  }: { name: string; limit: number; withGuestLibraries?: boolean; argsHere?: readonly string[] },
  ...args: string[]
): Promise<Pair> => {
  const program = ownProgram(name)
  const here = withGuestLibraries ? ends.guest.withGuestLibraries(t, program) : [program]
  const programs = { here: [...here, ...argsHere], there: await ends.guest.copy(t, program) }
  const pair = await runPair(t, ends, programs, '-g', ['-t', String(limit), ...args], limit)
  assertBothGood(pair, ends.guestServes)
  return pair
}

const runConnection = async (
  t: TestContext,
  { guest, daemon, version, guestServes }: Ends,
  connectionCase: ConnectionCase,
): Promise<void> => {
  const userland = userlandRoot(connectionCase.usesGuestRelease ? 'Debian 13' : 'Debian 12')
  if ('skip' in userland) return t.skip(userland.skip)
  const port = ++lastPort
  const listening = listeningPort(connectionCase, port)
  const address = guestServes ? GUEST[version] : HOST[version]
  const inGuest = (line: string): Running => {
    const [program, ...args] = wordsOf(line, { SERVER: address, PORT: String(port) })
    return guest.start(t, program, args)
  }
  const here = (line: string): Running => {
    const [program, ...args] = userland.command(wordsOf(line, { SERVER: address, PORT: String(port) }))
    return guest.startHere(t, program, args, daemon.env)
  }
  await daemon.settled(hasOnlyLiving) // so that the listener below is this server's
  const server = guestServes ? inGuest(connectionCase.server) : here(connectionCase.server)
  if (guestServes) await guest.untilConnectable(t, listening)
  else await Promise.race([daemon.settled(({ connections }) => connections.listeners > 0), server.ended])
  const client = guestServes ? here(connectionCase.client) : inGuest(connectionCase.client)
  assertGoodRdmacm(connectionCase, await finishRdmacm(connectionCase, server, client))
}

/** Stops a server while its client connects: the client repeats its REQ, gets an MRA, and waits. */
const answerLate = async (t: TestContext, { guest, daemon, version, guestServes }: Ends): Promise<void> => {
  const port = ++lastPort
  const args = ['-a', guestServes ? GUEST[version] : HOST[version], '-p', String(port), '-C', '1']
  const startIn = (inGuest: boolean, role: string): Running =>
    inGuest ? guest.start(t, 'rping', [role, ...args]) : guest.startHere(t, 'rping', [role, ...args], daemon.env)
  const counter = `${guestServes ? 'cm_tx_msgs' : 'cm_rx_msgs'}/mra`
  const before = await guest.counter(t, counter)
  await daemon.settled(hasOnlyLiving) // so that the listener below is this server's
  const server = startIn(guestServes, '-s')
  const signal = async (name: 'STOP' | 'CONT'): Promise<void> => {
    if (guestServes) await guest.signal(t, 'rping', name)
    else server.child.kill(`SIG${name}`)
  }
  if (guestServes) await guest.untilConnectable(t, port)
  else await Promise.race([daemon.settled(({ connections }) => connections.listeners > 0), server.ended])
  await signal('STOP')
  const client = startIn(!guestServes, '-c')
  await guest.untilCounted(t, counter, before)
  await signal('CONT')
  for (const { ended } of [client, server]) {
    const { status, stdout, stderr } = await ended
    assert.equal(status, 0, stdout + stderr)
  }
}

interface Counted {
  readonly accepted: number
  readonly retries: number
}

const countedBy = async (guest: Guest, scope: Scope): Promise<Counted> => ({
  accepted: await guest.counter(scope, 'hw_counters/rcvd_pkts'),
  retries: await guest.counter(scope, 'hw_counters/completer_retry_err'),
})

const direction = (guestServes: boolean): string => (guestServes ? 'Linux serves userdma' : 'userdma serves Linux')

interface PeerPlan {
  readonly kernel: Kernel
  readonly cases: Readonly<Partial<Record<Version, readonly PeerCase[]>>>
  readonly connections: Readonly<Partial<Record<Version, readonly ConnectionCase[]>>>
  /** The daemon's device has the driver mlx5. */
  readonly mlx5: readonly Version[]
  /** Connections while both sides lose a percentage of their packets. */
  readonly lossyConnections: readonly { readonly version: Version; readonly percent: number }[]
  /** IP versions of servers that answer after the clients' timeout. */
  readonly lateAnswers: readonly Version[]
  readonly soaks: readonly { readonly version: Version; readonly bytes: number; readonly percent: number }[]
  readonly outcomes: readonly Version[]
  readonly multicast: readonly Version[]
  /** FLUSH and ATOMIC WRITE, which Linux has since 6.2. */
  readonly persistence: readonly Version[]
  /** Regions with on-demand paging, which Linux's rxe has since 6.15. */
  readonly paging: readonly Version[]
  /** ECN and CNPs. */
  readonly congestion: readonly Version[]
  /** What the guest's calls of uverbs and rdma_cm must print (test/every-call.ts). */
  readonly calls?: readonly string[] | undefined
}

export const peerSuite = (plan: PeerPlan, skip: string | false): void => {
  void describe(plan.kernel, { skip }, () => {
    const suite = suiteScope()
    let guest: Guest
    /** Why the guest did not start. */
    let problem: string | undefined
    before(async () => {
      try {
        guest = await startGuest(suite, plan.kernel)
      } catch (error) {
        if (inCi()) throw error
        problem = String(error)
      }
    })

    /**
     * Tests with a daemon. `counts`: the guest accepts, and therefore counts, all packets. A retransmission by the
     * daemon, or its answer to one, has at most `maxRepeated` packets. `device`: settings of the daemon's device.
     */
    const withDaemon = (
      name: string,
      version: Version,
      {
        fault,
        counts = true,
        maxRepeated = 1,
        device = 'driver=rxe',
      }: { fault?: string; counts?: boolean; maxRepeated?: number; device?: string },
      body: (
        test: (name: string, run: (t: TestContext, ends: Omit<Ends, 'guestServes'>) => Promise<void>) => void,
      ) => void,
    ): void =>
      void describe(name, () => {
        const scope = suiteScope()
        let daemon: TestDaemon
        let countedBefore: Counted
        before(async () => {
          if (problem !== undefined) return
          const devices = [`rxe0@${HOST[version]},${device}`]
          daemon = await startDaemon(scope, {
            devices,
            link: 'udp',
            netns: guest.netns,
            ...(fault !== undefined && { fault }),
          })
          countedBefore = await countedBy(guest, scope)
        })
        body((title, run) =>
          it(title, t => (problem === undefined ? run(t, { guest, daemon, version }) : t.skip(problem))),
        )
        it(`${counts ? 'each side' : 'userdma'} accepted every received packet and its ICRC`, async t => {
          if (problem !== undefined) return t.skip(problem)
          const { devices } = await daemon.settled(isEmpty)
          const { port, transport, hw_counters } = devices[0]
          const { sentPackets, icrcErrors, dropped } = port
          assert.deepEqual({ icrcErrors, dropped }, { icrcErrors: 0, dropped: 0 })
          if (!counts) return
          const countedAfter = await countedBy(guest, t)
          // Linux does not know CNPs.
          const known = sentPackets - hw_counters.np_cnp_sent
          const missing = known - (countedAfter.accepted - countedBefore.accepted)
          // What userdma retransmits or answers again may arrive after the guest's program has exited.
          const guestRetries = countedAfter.retries - countedBefore.retries
          assert.ok(
            missing >= 0 && missing <= (guestRetries + transport.retries) * maxRepeated,
            `${missing} of ${known} packets were not accepted, ${guestRetries} retries of the guest, ` +
              `${transport.retries} of userdma`,
          )
        })
      })

    const programs = (version: Version, driver: string, cases: readonly PeerCase[]): void =>
      withDaemon(`programs with ${driver} over IPv${version}`, version, { device: `driver=${driver}` }, test => {
        for (const peerCase of cases)
          for (const guestServes of [true, false])
            test(`${peerCase.program} ${peerCase.args.join(' ')}: ${direction(guestServes)}`, (t, ends) =>
              runCase(t, { ...ends, guestServes }, peerCase))
      })
    for (const version of [4, 6] as const) {
      const cases = plan.cases[version]
      if (cases) programs(version, 'rxe', cases)
    }
    for (const version of plan.mlx5) programs(version, 'mlx5', mlx5Cases)

    for (const version of [4, 6] as const) {
      const cases = plan.connections[version]
      if (cases)
        withDaemon(`programs of rdma_cm over IPv${version}`, version, { counts: false }, test => {
          for (const one of cases)
            for (const guestServes of [true, false])
              test(`${one.client}: ${direction(guestServes)}`, (t, ends) =>
                runConnection(t, { ...ends, guestServes }, one))
        })
    }

    for (const { version, percent } of plan.lossyConnections) {
      const faulty = { fault: `drop=${percent / 100},seed=3`, counts: false }
      withDaemon(`connections over IPv${version}, ${percent} % lost each way`, version, faulty, test => {
        for (const guestServes of [true, false])
          test(direction(guestServes), async (t, ends) => {
            await guest.lose(t, percent)
            for (const one of lossyConnectionCases) await runConnection(t, { ...ends, guestServes }, one)
            await guest.lose(t, 0)
          })
      })
    }

    for (const version of plan.lateAnswers)
      withDaemon(`delayed answers, over IPv${version}`, version, { counts: false }, test => {
        for (const guestServes of [true, false])
          test(direction(guestServes), (t, ends) => answerLate(t, { ...ends, guestServes }))
      })

    for (const version of plan.outcomes)
      withDaemon(`requests without access rights, over IPv${version}`, version, { counts: false }, test => {
        for (const guestServes of [true, false])
          test(direction(guestServes), async (t, ends) => {
            const { client, server } = await runOwn(t, { ...ends, guestServes }, { name: 'outcomes', limit: 100 })
            assertOutcomes(guestServes ? 'Linux' : 'userdma', client.stdout, server.stdout)
          })
      })

    const persist = async (
      t: Scope,
      ends: Ends,
      argsHere: readonly string[] = [],
      args: readonly string[] = [],
    ): Promise<void> => {
      const program = { name: 'persist', limit: 100, withGuestLibraries: true, argsHere }
      const { client } = await runOwn(t, ends, program, ...args)
      assert.match(client.stdout, /each complete before its number\n.*beyond the region.*\n.*without that right/)
    }

    for (const version of plan.persistence)
      withDaemon(`FLUSH and ATOMIC WRITE over IPv${version}`, version, {}, test => {
        for (const guestServes of [true, false])
          test(direction(guestServes), (t, ends) => persist(t, { ...ends, guestServes }))
      })

    for (const version of plan.paging)
      withDaemon(`on-demand paging over IPv${version}`, version, {}, test => {
        for (const guestServes of [true, false]) {
          for (const one of pagingCases)
            test(`${one.program} ${one.args.join(' ')}: ${direction(guestServes)}`, (t, ends) =>
              runCase(t, { ...ends, guestServes }, one))
          test(`FLUSH and ATOMIC WRITE: ${direction(guestServes)}`, (t, ends) =>
            persist(t, { ...ends, guestServes }, ['-o']))
          // One packet each: see persist.c.
          test(`FLUSH and ATOMIC WRITE of small blocks, at both ends: ${direction(guestServes)}`, (t, ends) =>
            persist(t, { ...ends, guestServes }, [], ['-o', '-s', '1000']))
        }
      })

    for (const version of plan.congestion) {
      const marked = { device: 'driver=rxe,dcqcn=100gbit', fault: 'dir=sent,ecn=10%' }
      withDaemon(`marked packets over IPv${version}`, version, marked, test => {
        for (const guestServes of [true, false])
          test(`${markedCase.program}: ${direction(guestServes)}`, async (t, ends) => {
            const before = await countedBy(guest, t)
            await guest.mark(t, 10)
            await runCase(t, { ...ends, guestServes }, markedCase)
            await guest.lose(t, 0)
            const { np_ecn_marked_roce_packets, np_cnp_sent, rp_cnp_handled } = (await ends.daemon.stat()).devices[0]
              .hw_counters
            assert.ok(np_ecn_marked_roce_packets > 0 && np_cnp_sent > 0, 'Linux marked packets, which were answered')
            assert.equal(rp_cnp_handled, 0, 'Linux sends no CNPs')
            const { retries } = await countedBy(guest, t)
            assert.equal(retries, before.retries, "the guest's queue drops, and does not mark, packets without ECT")
          })
      })
    }

    for (const version of plan.multicast)
      withDaemon(`multicast over IPv${version}`, version, { counts: false }, test => {
        for (const guestServes of [true, false])
          test(`ib_send_bw to a group over IPv${version}: ${direction(guestServes)}`, async (t, ends) => {
            if (guestServes) await guest.joinGroup(t, groupAddress(version))
            await runCase(t, { ...ends, guestServes }, groupCase(version))
            const { multicastSent, multicastReceived } = (await ends.daemon.stat()).devices[0].transport
            assert.ok((guestServes ? multicastSent : multicastReceived) >= GROUP_MESSAGES)
          })
      })

    if (plan.calls !== undefined)
      it('every call of uverbs and rdma_cm ends as recorded', async t => {
        if (problem !== undefined) return t.skip(problem)
        const lines: string[] = []
        for (const name of EVERY_CALL) {
          const { status, stdout, stderr } = await guest.exec(t, await guest.copy(t, ownProgram(name)), [])
          assert.equal(status, 0, stderr)
          lines.push(...stdout.trimEnd().split('\n'))
        }
        assert.deepEqual(lines, plan.calls)
      })

    // Over IPv4, Linux cannot match a response with its request (docs/reference/management-datagrams.md).
    withDaemon('management datagrams over IPv6', 6, {}, test => {
      for (const guestServes of [true, false])
        test(`programs of libibumad: ${direction(guestServes)}`, (t, ends) => exchangeMads(t, { ...ends, guestServes }))
    })

    for (const { version, bytes, percent } of plan.soaks)
      withDaemon(
        `a soak over IPv${version}`,
        version,
        { fault: `drop=${percent / 100},seed=7`, maxRepeated: SOAK_BLOCK_PACKETS },
        test => {
          for (const guestServes of [true, false])
            test(`${bytes} bytes each way, ${percent} % lost each way: ${direction(guestServes)}`, async (t, ends) => {
              await guest.lose(t, percent)
              // Short timeouts may expire seven times while the guest is not scheduled; long ones delay every loss.
              const args = ['-b', String(bytes), '-T', '16', '-S', guestServes ? '1' : '2']
              const { client } = await runOwn(
                t,
                { ...ends, guestServes },
                { name: 'soak', limit: 100 + bytes / SOAK_BYTES_PER_SECOND },
                ...args,
              )
              assert.match(client.stdout, /every byte is right/)
              await guest.lose(t, 0)
              if (percent > 0) {
                const { transport } = (await ends.daemon.stat()).devices[0]
                assert.ok(transport.retransmissions > 0, 'packets were lost')
              }
            })
        },
      )
  })
}
