/*
 * The commands, but for those about the command line (program.ts). Each one's module is loaded only when it is called,
 * for a fast start.
 */
import { FaultSettings } from '../../spec/faults.ts'
import { exitOnBrokenPipe, UsageError } from '../fail.ts'
import { listText } from '../help-layout.ts'
import { readsFiles } from '../recorded-arguments.ts'
import type { CommandSpec } from './command.ts'
import { path } from './kinds.ts'
import { flagOf, type OptionSpecs } from './option.ts'
import * as options from './options.ts'

/** With the types of its options. */
const command = <S extends OptionSpecs>(spec: CommandSpec<S>): CommandSpec => spec as unknown as CommandSpec

const PROGRAM = [
  ['<program>', 'program to run'],
  ['[arguments...]', 'its arguments'],
] as const
const SCENARIO = ['<file>', 'the scenario', path] as const
const NET_NAME = ['[name]', 'name of the network (default: the only one)'] as const

export const commands: Readonly<Record<string, CommandSpec>> = {
  run: command({
    arguments: PROGRAM,
    options: options.runOptions,
    description:
      "Runs a program that finds userdma devices; exits with the program's status. Joins your daemon, or starts one that ends with its last client.",
    examples: [
      'userdma run -- ibv_devices',
      'userdma run --private --device rxe0@127.0.0.1 --device rxe1@127.0.0.2 -- ./test.sh',
      'userdma run --private --fault drop=5%,seed=7 -- ib_write_bw …',
      'userdma run --record session.udr -- ./my-test',
    ],
    run: async ({ options }, program, ...args) => (await import('../commands/run.ts')).run(program, args, options),
  }),
  walk: command({
    arguments: PROGRAM,
    options: options.programWalkOptions,
    description:
      'Runs a program once without failures, then once for each single failure: calls, packets, links, peers, devices, events. Exits with 65 if it has found crashes, hangs, swallowed failures, leaks, wrong results, or a program that goes on with failing completions.',
    examples: [
      'userdma walk -- ./my-test',
      "userdma walk -- sh -c './server & ./client localhost; s=$?; kill $!; wait; exit $s'",
      'userdma walk --kinds links,peers --timers 0.1 -- ./my-test.sh',
      'userdma walk --time-limit 300 --since walk.json --json -o walk.json.new -- ./my-test.sh',
    ],
    run: async ({ options }, program, ...args) =>
      (await import('../commands/walk.ts')).walkProgram(program, args, options),
  }),
  trace: command({
    arguments: PROGRAM,
    options: options.traceOptions,
    description: 'Runs a program and prints each of its calls to a device, decoded.',
    examples: [
      'userdma trace -- ibv_devinfo',
      'userdma trace --class rc_qp,cq --errors -- ./my-test',
      'userdma trace -c -- ib_write_bw …',
      'userdma trace -o calls.txt --pcap packets.pcapng -- ibv_rc_pingpong -g 1 localhost',
    ],
    run: async ({ options }, program, ...args) => (await import('../commands/trace.ts')).trace(program, args, options),
  }),
  check: command({
    arguments: [['[program]', 'program to run'], PROGRAM[1]],
    options: options.checkOptions,
    description:
      'Runs a program and reports what it does wrong with verbs, with the stacks of its calls and posts; exits with 65 for errors (see --fail-on), else with the status of the program. Session files of --record and captures are read, not run: their findings, also with other options; `check -- FILE` runs any file.',
    examples: [
      'userdma check -- ./my-test',
      "userdma check -- sh -c './server & ./client localhost; wait'",
      'userdma check --fail-on warning --suppressions rdma.supp --sarif findings.sarif -- ./my-test',
      'userdma check --torment-search 100 -- ./my-test',
      'userdma check --like mlx5,irdma -- ./my-test',
      'userdma check --races -- ./my-test',
      'userdma run --record session.udr --record-depth check -- ./my-test; userdma check session.udr',
      'userdma check --explain stale-rkey',
    ],
    async run(invocation, program: string | undefined, ...args) {
      const { options } = invocation
      const { explain, tormentSearch } = options
      if (explain !== undefined) {
        exitOnBrokenPipe()
        return (await import('../commands/explain.ts')).explainFinding(explain, options)
      }
      if (program === undefined) return invocation.fail("missing required argument 'program'")
      if (await readsFiles(program, args, invocation)) return
      if (options.symbols) invocation.fail('--symbols is for a recording; of a program that runs, lines are looked up')
      if (tormentSearch !== undefined)
        return (await import('../commands/torment-search.ts')).tormentSearch(program, args, {
          ...options,
          tormentSearch,
        })
      return (await import('../commands/check.ts')).check(program, args, options)
    },
  }),
  export: command({
    arguments: [
      ['<file>', 'a session file that `--record` has written, or a capture (pcap, pcapng; also gzip or zstd)'],
    ],
    options: options.exportOptions,
    description:
      'Writes a session file or a capture in another format: for people, scripts, Wireshark, https://ui.perfetto.dev or browsers. Of a capture, pcapng has the RDMA packets that are asked for.',
    examples: [
      'userdma export session.udr --to text | less',
      'userdma export session.udr --to perfetto -o session.perfetto',
      'userdma export session.udr --to pcapng -o packets.pcapng',
      'userdma export capture.pcap --to pcapng --redact --host 10.0.0.7 -o report.pcapng',
    ],
    async run({ options: chosen, given, fail }, file) {
      exitOnBrokenPipe()
      const { isCaptureFile } = await import('../capture-file.ts')
      const { exportBeside, exportCapture } = await import('../commands/export-capture.ts')
      if (chosen.capture !== undefined) return exportBeside(file, chosen.capture, chosen)
      if (isCaptureFile(file)) return exportCapture(file, chosen)
      for (const option of Object.keys(options.packetOptions))
        if (given.has(option)) fail(`${flagOf(option)} is for captures, which ${file} is not`)
      await (await import('../commands/export.ts')).exportSession(file, chosen)
    },
  }),
  explain: command({
    arguments: [
      [
        '[words...]',
        'a completion status (name, number or text), an event, a vendor_err or a finding, or a line of any program; or logs and captures: files, folders, archives, HOST=FILE',
      ],
    ],
    options: options.explainOptions,
    description:
      'Explains why requests fail. A word or a line: what it means, and causes in the order in which to look for them. Logs of programs and of the kernel (also folders, tar, gzip, zstd; - for standard input): what failed first, where, and why; exit status 65 if RDMA failed. Captures (pcap, pcapng, ERF; also gzip or zstd): what failed or was slow between the hosts, worst first, with the frames that show it. With --slow: where the time of the requests of a recording went.',
    examples: [
      'userdma explain RETRY_EXC_ERR',
      'userdma explain 0x502',
      "userdma explain 'synd 0x15 vend 0x81'",
      'userdma explain job.log node7=dmesg.txt --html report.html',
      'kubectl logs my-pod | userdma explain -',
      'userdma explain stale-rkey',
      'userdma explain capture.pcapng',
      'tcpdump -i mlx5_0 -w - | userdma explain -',
      'userdma explain --slow session.udr',
    ],
    async run({ options, given, fail }, ...words) {
      if ((words.length === 0) === (options.slow === undefined))
        fail('explain takes a word, files or --slow FILE, and only one of them')
      if (options.slow !== undefined && ['quiet', 'html', 'redact'].some(name => given.has(name)))
        fail('--quiet, --html and --redact are for logs')
      exitOnBrokenPipe()
      if (options.slow !== undefined)
        return (await import('../commands/explain-slow.ts')).explainSlow(options.slow, options)
      const { explain, filesAmong, isExplained } = await import('../commands/explain.ts')
      const word = words.join(' ')
      const files = isExplained(word) ? undefined : filesAmong(words)
      if (files !== undefined) return (await import('../commands/explain-files.ts')).explainFiles(files, options, fail)
      if ([...given].some(name => name !== 'color'))
        fail('options of explain are for logs, captures and --slow, except --color')
      const { explainWords } = await import('../commands/explain-log.ts')
      if (isExplained(word)) {
        explain(word, options)
        explainWords(word, true)
      } else if (!explainWords(word, false)) explain(word, options)
    },
  }),
  daemon: command({
    options: options.daemonOptions,
    description: 'Serves programs, until a signal such as SIGINT or SIGTERM: in the foreground, or with --detach.',
    examples: [
      'userdma daemon',
      'userdma daemon --device rxe0@127.0.0.1 --device rxe1@127.0.0.2 --fault device=rxe1,drop=1%',
      'userdma daemon --link udp --device rxe0@192.0.2.1 --socket ~/.userdma/sock',
      'userdma daemon --detach && eval "$(userdma env)"',
      'userdma daemon --allow-group rdma --socket /run/userdma/sock',
    ],
    run: async ({ options }) => (await import('../commands/daemon.ts')).daemon(options),
  }),
  dump: command({
    arguments: [['<pid>', 'the process, or that of `userdma run`']],
    description:
      'Writes a session file of what a program with a flight recorder (`run --host --flight-recorder`) has done last, and prints its name.',
    examples: ['userdma dump $(pidof my-program)'],
    run: async (_, pid) => (await import('../commands/dump.ts')).dump(pid),
  }),
  stop: command({
    options: options.socketOptions,
    description: 'Ends a daemon, also while programs use it, and returns when it has ended.',
    run: async ({ options }) => (await import('../commands/stop.ts')).stop(options),
  }),
  env: command({
    options: options.envOptions,
    description:
      'Prints the commands with which a shell sets what `run` sets for its program. A daemon must run, but not for --unset.',
    examples: [
      'eval "$(userdma env)"',
      'userdma stop && eval "$(userdma env --unset)"',
      'userdma env --shell fish | source',
      'userdma env --shell github >> "$GITHUB_ENV"',
    ],
    run: async ({ options }) => (await import('../commands/env.ts')).env(options),
  }),
  stat: command({
    options: options.statOptions,
    description: 'Shows the state of a daemon: objects, rings, sessions, memory, counters.',
    examples: [
      'userdma stat',
      'userdma stat --qps',
      'userdma stat --waits',
      'userdma stat --lent',
      'userdma stat --json',
      'userdma stat --watch 5',
    ],
    run: async ({ options }) =>
      options.watch === undefined
        ? (await import('../commands/stat.ts')).stat(options)
        : (await import('../watch.ts')).watch({ ...options, watch: options.watch }),
  }),
  top: command({
    options: options.topOptions,
    description: 'Shows devices, processes and queue pairs with their rates and causes of failures, until q.',
    examples: ['userdma top', 'userdma top -d 0.5', 'userdma top --batch -n 1'],
    run: async ({ options }) => (await import('../commands/top.ts')).top(options),
  }),
  inspect: command({
    arguments: [['[file]', 'a session file of --record, or a capture (default: what happens on a daemon now)', path]],
    options: options.inspectOptions,
    description:
      'Serves a page that shows packets, requests, objects and failures: of a recorded session or a capture, or live of a daemon.',
    examples: [
      'userdma inspect --allow-faults',
      'userdma run --record session.udr -- ./my-test && userdma inspect session.udr',
      'userdma inspect capture.pcapng',
    ],
    run: async ({ options }, file: string | undefined) =>
      (await import('../commands/inspect.ts')).inspect(file, options),
  }),
  devices: command({
    options: options.queryOptions,
    description: 'Lists the devices of a daemon.',
    run: async ({ options }) => (await import('../commands/devices.ts')).devices(options),
  }),
  schema: command({
    options: options.schemaOptions,
    description: 'Prints every class, method and attribute with its type: all that are declared, or those of a device.',
    examples: ['userdma schema', 'userdma schema --device rxe0 --json'],
    run: async ({ options }) => (await import('../commands/schema.ts')).schema(options),
  }),
  device: {
    description: 'Adds and removes devices of a running daemon.',
    remedy: 'a device is added by `userdma device add NAME@ADDRESS`, for example `userdma device add rxe1@127.0.0.2`\n',
    commands: {
      add: command({
        arguments: [['<name[@address]>', `${options.DEVICE_HELP} (\`userdma help reference/cli\`)`]],
        options: options.socketOptions,
        description: 'Adds a device; programs find it immediately.',
        examples: ['userdma device add rxe1@127.0.0.2', 'userdma device add ctx0'],
        remedy: 'for example `userdma device add rxe1@127.0.0.2`\n',
        run: async ({ options }, text) => (await import('../commands/device.ts')).addDevice(text, options),
      }),
      remove: command({
        arguments: [['<name>', 'its name']],
        options: options.socketOptions,
        description: 'Removes a device, even while programs use it.',
        run: async ({ options }, name) => (await import('../commands/device.ts')).removeDevice(name, options),
      }),
    },
  },
  machine: {
    description: 'Machines that programs are shown in place of this one (--machine): their adapters are devices.',
    examples: [
      'userdma machine list',
      'userdma machine capture -o mine.machine',
      'userdma run --machine mine.machine -- lstopo',
    ],
    commands: {
      capture: command({
        options: options.machineCaptureOptions,
        description:
          'Writes what programs read of this machine into a file: PCI tree, NUMA nodes, processors, adapters with their ports and interfaces, IOMMU groups, ACS. Without serial numbers and addresses.',
        run: async ({ options }) => (await import('../commands/machine.ts')).capture(options),
      }),
      list: command({
        description: 'Lists the machines that userdma has.',
        run: async () => (await import('../commands/machine.ts')).listMachines(),
      }),
      show: command({
        arguments: [['<file|name>', 'a machine file, or one that userdma has', path]],
        description: 'Prints a machine file, for a file of your own, after checking it.',
        run: async (_, name) => (await import('../commands/machine.ts')).showMachine(name),
      }),
    },
  },
  fault: {
    description: 'Shows or changes the fault rules of a running daemon.',
    text: listText(
      'A rule selects packets and says what happens to them; every rule that matches a packet acts on it.',
      Object.values(FaultSettings).map(({ example, help }) => [example, help]),
    ),
    examples: [
      'userdma fault set drop=1%',
      "userdma fault set 'device=rxe0,dir=sent,opcode=RC_ACKNOWLEDGE,delay=5ms' rate=100mbit",
      'userdma fault show',
      'userdma fault clear',
    ],
    commands: {
      show: command({
        options: options.queryOptions,
        description: 'Prints the current rules, one per line, with their counts.',
        run: async ({ options }) => (await import('../commands/fault.ts')).showFaults(options),
      }),
      set: command({
        arguments: [['<rules...>', 'rules, e.g. drop=1%']],
        options: options.socketOptions,
        description: 'Replaces all rules by these.',
        run: async ({ options }, ...rules) => (await import('../commands/fault.ts')).setFaults(rules, options),
      }),
      clear: command({
        options: options.socketOptions,
        description: 'Removes all rules.',
        run: async ({ options }) => (await import('../commands/fault.ts')).setFaults([], options),
      }),
      link: command({
        arguments: [
          ['<device>', 'its name'],
          ['<state>', 'down or up'],
        ],
        options: options.linkOptions,
        description:
          'Takes the link of a device down or up, as a cable that is pulled: PORT_ERR, packets lost, PORT_ACTIVE.',
        run: async ({ options }, device, state) =>
          (await import('../commands/fault.ts')).setLink(device, state, options),
      }),
    },
  },
  net: {
    description: 'Networks of hosts on this machine, from a file: each host has devices, a daemon and a namespace.',
    text: () => `
The file is YAML; the smallest is \`hosts: 2\`. More is in
\`userdma help how-to/net\`:

  hosts: { client: { count: 7 }, server: { driver: mlx5 } }
  switches: [tor]
  links:
    - { between: [client, tor], rate: 1gbit, loss: 0.1% }
    - { between: [server, tor], rate: 10gbit, mtu: 4200 }`,
    examples: [
      'userdma net up lab.yaml',
      'userdma net exec client1 -- ibv_devinfo',
      'userdma net show',
      'userdma net down',
    ],
    commands: {
      up: command({
        arguments: [['<file>', 'its description', path]],
        description: 'Makes the network, and returns when all daemons are ready.',
        run: async (_, file) => (await import('../commands/net.ts')).netUp(file),
      }),
      exec: command({
        arguments: [
          ['<host>', 'name of the host'],
          ['<program>', 'program to run'],
          ['[arguments...]', 'its arguments, after --'],
        ],
        options: options.netExecOptions,
        description: "Runs a program on a host, where it finds the host's devices; exits with the program's status.",
        run: async ({ options }, host, program, ...args) =>
          (await import('../commands/net.ts')).netExec(host, program, args, options),
      }),
      play: command({
        arguments: [SCENARIO],
        options: options.netPlayOptions,
        description:
          'Makes the network of a scenario, runs its programs with its failures, and says what did not hold.',
        run: async ({ options }, file) => (await import('../commands/net.ts')).netPlay(file, options),
      }),
      walk: command({
        arguments: [['<file>', 'the scenario, whose own failures are left out', path]],
        options: options.netWalkOptions,
        description:
          'Makes the network of a scenario, and runs its programs once without failures, then once for each single failure on a host. Exits with 65 if it has found any.',
        run: async ({ options }, file) => (await import('../commands/net.ts')).netWalk(file, options),
      }),
      show: command({
        arguments: [NET_NAME],
        options: options.netShowOptions,
        description: 'Shows the hosts with their addresses, devices, links and daemons.',
        run: async ({ options }, name: string | undefined) =>
          (await import('../commands/net.ts')).netShow(name, options),
      }),
      down: command({
        arguments: [NET_NAME],
        description:
          'Ends all programs and daemons of the network and removes it, also what a killed `net up` has left.',
        run: async (_, name: string | undefined) => (await import('../commands/net.ts')).netDown(name),
      }),
    },
  },
  metrics: command({
    options: options.metricsOptions,
    description: 'Prints the counters of a daemon as metrics for Prometheus, or serves them at /metrics.',
    examples: [
      'userdma metrics --listen 127.0.0.1:9879',
      'userdma metrics > /var/lib/prometheus/node-exporter/userdma.prom',
    ],
    run: async ({ options }) => (await import('../commands/metrics.ts')).metrics(options),
  }),
  cdi: command({
    options: options.cdiOptions,
    description: 'Writes a file of the Container Device Interface, by which containers get the devices of a daemon.',
    examples: [
      'userdma cdi --socket /run/userdma/sock --output userdma.json',
      'install -D -m 644 userdma.json /etc/cdi/userdma.json',
      'podman run --network=host --device userdma.dev/rdma=rxe0 IMAGE ibv_devinfo',
    ],
    run: async ({ options }) => (await import('../commands/cdi.ts')).cdi(options),
  }),
  'device-plugin': command({
    options: options.devicePluginOptions,
    description:
      'Offers the devices of a daemon to pods of Kubernetes, as a device plugin of kubelet, until a signal such as SIGTERM.',
    examples: [
      'userdma device-plugin --socket /run/userdma/sock',
      'userdma device-plugin --socket /run/userdma/sock --resource rdma/hca,shares=1000 --cdi /var/run/cdi',
      'userdma device-plugin --socket /run/userdma/sock --resource vpc.amazonaws.com/efa,driver=efa,shares=1',
    ],
    async run({ options }) {
      const { devicePlugin } = await import('../commands/device-plugin.ts').catch(error => {
        if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error
        throw new UsageError(
          'this package has no device plugin: it is in the container image (`userdma help how-to/kubernetes`)',
        )
      })
      return devicePlugin(options)
    },
  }),
  sim: command({
    arguments: [['<file>', 'scenario, in YAML', path]],
    options: options.simOptions,
    description:
      'Simulates devices and a congested network in virtual time, with and without congestion control, and prints goodput, latencies, queues and fairness.',
    examples: ['userdma sim incast.yaml', 'userdma sim incast.yaml --html incast.html --csv incast.csv'],
    run: async ({ options }, file) => (await import('../commands/sim.ts')).sim(file, options),
  }),
  doctor: command({
    arguments: [['[programs...]', 'programs to look at, too']],
    options: options.doctorOptions,
    description:
      'Looks at the machine, and says what works, what does not, and what to do; exits with 1 if something fails.',
    examples: ['userdma doctor', 'userdma doctor ./my-program'],
    run: async ({ options }, ...programs) => (await import('../commands/doctor.ts')).doctor(programs, options),
  }),
  demo: command({
    options: options.demoOptions,
    description: 'A demonstration: two programs exchange data, with their calls and packets.',
    run: async ({ options }) => (await import('../commands/demo.ts')).demo(options),
  }),
}
