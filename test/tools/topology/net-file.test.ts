/*
 * Topology files: what is refused, where and with which words; and what a file becomes.
 */
import assert from 'node:assert/strict'
import { describe, it, test } from 'node:test'
import fc from 'fast-check'
import { type Plan, planNet } from '../../../src/cli/net/plan.ts'
import { type Routes, routesOf } from '../../../src/cli/net/routes.ts'
import { networkDrivers } from '../../../src/drivers/registered.ts'
import { parseFabric } from '../../../src/settings/fabric.ts'
import { InputError } from '../../../src/tools/topology/input-error.ts'
import { parseTopology } from '../../../src/tools/topology/net-file.ts'

const plan = (source: string): Plan => planNet(parseTopology(source, 'lab.yaml'), networkDrivers)

/** Files with the message for each, without the name of the file. */
const refused: readonly (readonly [source: string, message: RegExp])[] = [
  ['', /^1:1: a topology is a map with hosts, switches, routers and links; the smallest is `hosts: 2`$/],
  ['- h1', /^1:1: a topology is a map/],
  ['hosts: [h1', /^1:11: /],
  ['hosts: 2\nhosts: 3', /^2:1: "hosts" is twice in a topology$/],
  ['hosts: 2\n---\nhosts: 3', /^2:1: a second document: a topology is one document$/],
  ['['.repeat(20_000), /^1:33: nested too deeply; a topology needs 4 levels, and 32 are allowed$/],
  [`hosts:\n${'- '.repeat(20_000)}`, /^2:\d\d: nested too deeply/],
  ['hosts: 2\nswitch: [s]', /^2:1: "switch" is no setting of a topology, did you mean "switches"\?$/],
  ['links: []', /^1:1: the topology has no hosts; add, for example, `hosts: 2`$/],
  ['hosts: 0', /^1:8: hosts "0": give an integer from 1 to 512$/],
  ['hosts: 513', /^1:8: hosts "513"/],
  ['hosts: 2.5', /^1:8: hosts "2.5"/],
  ['hosts: two', /^1:8: hosts "two"/],
  ['hosts:', /^1:7: hosts nothing: give an integer/],
  ['hosts: {}', /^1:8: hosts: there is none; give a number of hosts, a list of names/],
  ['hosts: [h1, h1]', /^1:13: name "h1": there are two hosts, switches or routers with this name$/],
  ['hosts: [h_1]', /^1:9: name "h_1": a name has letters, digits and "-", at most 24 characters/],
  ['hosts: [Localhost]', /^1:9: name "Localhost"/],
  ['hosts: [a, 10]', /^1:12: name "10": programs take it for an address; a name of a host is not a number$/],
  ['hosts: { 0xA: }', /^1:10: name "0xA": programs take it/],
  ['hosts: [h1, H1]', /^1:13: name "H1": the host "h1" differs only in case/],
  [
    `hosts:\n${Array.from({ length: 30_000 }, (_, i) => `  h${i}:\n`).join('')}`,
    /^514:3: there are more than 512 hosts$/,
  ],
  [
    'hosts: 2\nlinks:\n  - { between: [h1, h2], addresses: [10.1.0.1/16, 10.1.0.2/16] }\n  - { between: [h1, h2], addresses: [10.1.2.1/24, 10.1.2.2/24] }',
    /^4:5: addresses: "10.1.2.1\/24" and "10.1.0.1\/16" of host "h1" have overlapping subnets; give each/,
  ],
  [
    'hosts: 2\nlinks:\n  - { between: [h1, h2], addresses: [10.77.0.1/16, 10.77.0.2/16] }\n  - { between: [h1, h2] }',
    /^3:5: addresses: .* of host "h1" have overlapping subnets/,
  ],
  [`hosts: [${'x'.repeat(25)}]`, /^1:9: name "x{25}"/],
  ['hosts: [[h1]]', /^1:9: name "\[h1\]"/],
  ['hosts: { h1: mlx5 }', /^1:14: host "h1": "mlx5" is no map of settings, such as \{ driver: mlx5 \}$/],
  ['hosts: { h1: { driver: mlx4 } }', /^1:24: driver "mlx4" is not one of rxe, efa, mlx5, none$/],
  ['hosts: { h: { count: -1 } }', /^1:22: count "-1": give an integer from 1 to 512$/],
  [
    'hosts: { h: { cpu: 1 } }',
    /^1:15: "cpu" is no setting of host "h"; there are count, driver, layer, guid, pkeys, max_qp, .*max_qp_rd_atom$/,
  ],
  ['hosts: { h: { count: 2 }, h1: }', /^1:27: name "h1": there are two/],
  ['name: a-b\nhosts: 2', /^1:7: name "a-b": a name of a net has letters, digits and "_", and at most 24/],
  ['hosts: 2\nswitches: [s]', /^2:1: there are switches and no links to them: add links$/],
  ['hosts: 2\nswitches: s\nlinks: []', /^2:11: switches: "s": give a list of names, such as \[tor\]$/],
  ['hosts: 2\nlinks: { a: b }', /^2:8: links: \{ a: b \}: give a list/],
  ['hosts: 2\nlinks: []', /^1:8: host "h1" has no link$/],
  ['hosts: 2\nlinks: [x]', /^2:9: "x" is no link; a link is like/],
  ['hosts: 2\nlinks: [{ mtu: 1500 }]', /^2:9: the link has no ends/],
  ['hosts: 2\nlinks: [{ between: [h1] }]', /^2:20: between: \[h1\]: give two names/],
  ['hosts: 2\nlinks: [{ between: [h1, h3] }]', /^2:25: there is no host, switch or router "h3"; there are h1, h2$/],
  ['hosts: 2\nlinks: [{ between: [h1, rack] }]', /^2:25: there is no host, switch or router "rack"; there are h1, h2$/],
  ['hosts: 2\nlinks: [{ between: [h1, h1] }]', /^2:20: between: \[h1, h1\]: a link has two different ends$/],
  ['hosts: 2\ncheck: yes', /^2:8: check "yes": give true or false$/],
  ['hosts: 2\ncheck:', /^2:7: check nothing: give true or false$/],
  ['hosts: 2\nfolders: /tmp', /^2:10: folders: "\/tmp": give a list of folders, such as \[\/dev\/shm/],
  ['hosts: 2\nfolders: [/tmp, tmp]', /^2:17: folders: "tmp": give the absolute path of a folder, without "\/" at/],
  ['hosts: 2\nfolders: [/]', /^2:11: folders: "\/": give the absolute/],
  ['hosts: 2\nfolders: [/tmp/../etc]', /^2:11: folders: "\/tmp\/..\/etc": give the absolute/],
  ['hosts: 2\nfolders: [/tmp/, [x]]', /^2:11: folders: "\/tmp\/": give the absolute/],
  [
    'hosts: { a: { driver: none }, b: }\nlinks: [{ between: [a, b], loss: 1% }]',
    /^2:9: delay and loss are faults of the daemons of hosts, and host "a" has none \(driver: none\); give it/,
  ],
  ['hosts: { h: { count: 3 }, g: }\nlinks: [{ between: [h, g] }]', /^2:20: .*several hosts have links to a switch/],
]

/** Settings of a link between two hosts, with the message. */
const refusedSettings: readonly (readonly [settings: string, message: RegExp])[] = [
  ['mtu: 68', /mtu "68": give an integer from 352 to 65535$/],
  ['mtu: 65536', /mtu "65536": give an integer from 352 to 65535$/],
  ['mtu: 1.5k', /mtu "1.5k": give an integer/],
  ['rate: 1bit', /rate "1bit" is not bits per second from 1kbit to 1tbit, like 800kbit, 10mbit or 2.5gbit$/],
  ['rate: -1gbit', /rate "-1gbit" is not/],
  ['rate: [1gbit]', /rate \[1gbit\] is not/],
  ['rate:', /rate nothing is not/],
  ['delay: 11s', /delay "11s" is not milliseconds from 0 to 10000, or a time like 200us, 5ms or 1s$/],
  ['loss: 101%', /loss "101%" is not a probability from 0 to 1 or from 0% to 100%$/],
  ['lossy: 1%', /"lossy" is no setting of a link, did you mean "loss"\?$/],
  ['addresses: [192.0.2.1/24]', /addresses: \[192.0.2.1\/24\]: give a list with an address for each of the 2 hosts/],
  ['addresses: [192.0.2.1, 192.0.2.2]', /addresses: "192.0.2.1" is no address with the bits of its subnet/],
  ['addresses: [192.0.2.1/24, 192.0.3.2/24]', /"192.0.3.2\/24" and "192.0.2.1\/24" are not in one subnet/],
  ['addresses: [192.0.2.1/24, 192.0.2.1/24]', /two hosts have "192.0.2.1\/24"$/],
  ['addresses: [192.0.2.0/24, 192.0.2.1/24]', /"192.0.2.0\/24" is the first address of its subnet, which names the/],
  ['addresses: [192.0.2.1/24, 192.0.2.255/24]', /"192.0.2.255\/24" is the last address of its subnet, which is for/],
  ['addresses: [127.0.0.1/8, 127.0.0.2/8]', /"127.0.0.1\/8" is an address of the host itself$/],
  ['addresses: [224.0.0.1/8, 224.0.0.2/8]', /"224.0.0.1\/8" is a multicast or reserved address$/],
  ['mtu: 1000, addresses: [fd00::1/64, fd00::2/64]', /IPv6 needs an mtu of 1280 or more, and the link has 1000$/],
]

/** Of InfiniBand hosts. */
const refusedFabrics: readonly (readonly [source: string, message: RegExp])[] = [
  ['hosts: { a: { layer: ib } }', /^1:22: layer "ib" is not one of ethernet, infiniband$/],
  ['hosts: { a: { layer: infiniband, driver: rxe } }', /^1:42: driver "rxe" has no InfiniBand ports .* only mlx5 has$/],
  ['hosts: { a: { layer: infiniband, driver: none } }', /^1:42: driver "none" has no InfiniBand ports/],
  ['hosts: { a: { pkeys: [0xffff] } }', /^1:15: pkeys is a setting of InfiniBand ports: give layer: infiniband too$/],
  ['hosts: { a: { max_qp: 0 } }', /^1:23: max_qp="0": give a number from 1 to 2147483647$/],
  ['hosts: { a: { max_pinned: 4x } }', /max_pinned="4x": give a number of bytes, such as 65536, 64k/],
  ['hosts: { a: { layer: infiniband, pkeys: 1 } }', /pkeys: "1": give a list of 1 to 128 partition keys/],
  ['hosts: { a: { layer: infiniband, pkeys: [0x8000] } }', /pkeys: \[0x8000\]: give a list .* 0x8000 is none$/],
  ['hosts: { a: { layer: infiniband, guid: 12 } }', /guid "12": give 16 hexadecimal digits, not all 0$/],
  [
    'hosts: { a: { count: 2, layer: infiniband, guid: 0x1122334455667788 } }',
    /^1:44: guid: several hosts cannot have the same; give each a line of its own$/,
  ],
  [
    'hosts: { a: { layer: infiniband }, b: }\nswitches: [s]\nlinks:\n  - { between: [a, s] }\n  - { between: [b, s] }',
    /^5:5: switch "s" has host "a" of InfiniBand and host "b" of Ethernet: a switch has the layer of its hosts; give/,
  ],
  [
    'hosts: { a: { layer: infiniband }, b: }\nswitches: [s, t]\nlinks:\n  - { between: [s, t] }\n  - { between: [b, t] }\n  - { between: [a, s] }',
    /^6:5: switches "t" and "s" are joined, and have host "a" of InfiniBand and host "b" of Ethernet/,
  ],
  [
    'hosts: { a: { layer: infiniband }, b: }\nlinks: [{ between: [a, b] }]',
    /^2:9: hosts "a" and "b" have InfiniBand ports: cable them to a switch, which has their manager$/,
  ],
  [
    'hosts: { a: { layer: infiniband } }\nswitches: [s, t]\nlinks: [{ between: [a, s] }, { between: [a, t] }]',
    /^3:30: host "a" has links to InfiniBand switches "s" and "t", which are not joined; join them, or give it one/,
  ],
  [
    'hosts: { a: { layer: infiniband } }\nswitches: [s, t]\nlinks: [{ between: [a, s] }, { between: [s, t], delay: 101ms }]',
    /^3:30: delay: the link between "s" and "t", which are InfiniBand switches, has at most 100ms: beyond it no subnet/,
  ],
  ['hosts: { a: { count: 65, layer: infiniband } }', /^1:1: the InfiniBand switches with "switch" have more than 64/],
  ['hosts: 2\nsubnet-manager: none', /^2:17: subnet-manager is of InfiniBand hosts, and there are none; give hosts/],
  [
    'hosts: { h1: { layer: infiniband } }\nsubnet-manager: h2',
    /^2:17: subnet-manager "h2" is not one of embedded, none, or a host with a port at "switch", as h1$/,
  ],
  [
    'hosts: { a: { count: 64, layer: infiniband } }\nswitches: [s, t]\nlinks: [{ between: [a, s] }, { between: [s, t], loss: 1% }]',
    /^3:9: the InfiniBand switches with "s" have more than 63 ports of hosts, and links between them with rate, delay/,
  ],
  ['ring: { switches: 3, hosts: 2, loss: 2 }', /^1:38: loss "2" is not a probability/],
  ['fat-tree: { leaves: 4, hosts: 2 }', /^1:11: the fat-tree needs spines, an integer from 1 to 32$/],
  ['fat-tree: { leaves: 0, spines: 2, hosts: 2 }', /^1:21: leaves "0": give an integer from 1 to 32$/],
  ['fat-tree: 4', /^1:11: fat-tree: "4" is no map of settings, such as \{ leaves: 4, spines: 4, hosts: 16 \}$/],
  ['ring: { switches: 2, hosts: 2 }', /^1:19: switches "2": give an integer from 3 to 64$/],
  ['ring: { leaves: 2 }', /^1:9: "leaves" is no setting of the ring; there are switches, hosts, rate, delay, loss$/],
  [
    'hosts: 2\nring: { switches: 3, hosts: 2 }',
    /^2:22: hosts: the topology has hosts already; leave those of the ring/,
  ],
  [
    'ring: { switches: 3, hosts: 2 }\nlinks: []',
    /^2:1: links: the switches and links are those of the ring; leave one/,
  ],
  ['ring: { switches: 3 }', /^1:1: the topology has no hosts/],
  [
    'hosts: { a: { layer: ethernet }, b: { layer: infiniband } }\nring: { switches: 3 }',
    /^2:1: switches "switch1" and "switch2" are joined, and have host "b" of InfiniBand and host "a" of Ethernet/,
  ],
]

const assertRefused = (source: string, message: RegExp): void => {
  try {
    plan(source)
  } catch (error) {
    assert.ok(error instanceof InputError, `${source}: ${(error as Error).stack}`)
    assert.match(error.message.replace(/^lab\.yaml:/, ''), message)
    return
  }
  assert.fail(`accepted: ${source}`)
}

/** Two hosts at two routers, and more links. */
const routed = (...more: string[]): string =>
  [
    'hosts: [a, b]\nrouters: [r, q]\nswitches: [s]\nlinks:',
    ...['{ between: [a, r] }', '{ between: [b, q] }', ...more].map(link => `  - ${link}`),
  ].join('\n')

const refusedRouters: readonly (readonly [source: string, message: RegExp])[] = [
  ['hosts: 2\nrouters: [r]', /^2:1: there are routers and no links to them: add links$/],
  ['hosts: 2\nrouters: r\nlinks: []', /^2:10: routers: "r": give a list of names, such as \[leaf1\]$/],
  ['hosts: [a]\nrouters: [a]\nlinks: []', /^2:11: name "a": there are two hosts, switches or routers/],
  ['hosts: [a]\nrouters: ["7"]\nlinks: []', /^2:11: name "7": programs take it for an address/],
  [
    routed('{ between: [q, r], delay: 1ms }'),
    /^7:5: the link between "q" and "r", which are routers or switches, has only/,
  ],
  [routed('{ between: [r, s], loss: 1% }'), /^7:5: the link between "r" and "s".*give a link of a host the loss/],
  [
    'hosts: { a: { layer: infiniband } }\nrouters: [r]\nswitches: [s]\nlinks: [{ between: [a, s] }, { between: [s, r] }]',
    /^4:30: routers forward between Ethernet segments, and one of "s" and "r" is an InfiniBand switch$/,
  ],
  ['ring: { switches: 3, hosts: 2 }\nrouters: [r]', /^2:1: routers: InfiniBand switches have none/],
  [
    routed('{ between: [q, r], addresses: ["fd00::1/64", "fd00::2/64"] }'),
    /^7:5: addresses: the addresses of a net with routers are all IPv4, or all IPv6$/,
  ],
  [
    routed('{ between: [q, r], addresses: [10.77.1.9/28, 10.77.1.10/28] }'),
    /^7:5: addresses: "10\.77\.1\.9\/28" and "10\.77\.1\.1\/24" have overlapping subnets/,
  ],
  ['hosts: [a]\nrouters: [r, q]\nlinks: [{ between: [a, r] }]', /^2:14: router "q" has no link$/],
]

describe('refused files', () => {
  for (const [source, message] of refused)
    it(JSON.stringify(source.slice(0, 200)), () => assertRefused(source, message))
  for (const [source, message] of refusedRouters) it(JSON.stringify(source), () => assertRefused(source, message))
  for (const [source, message] of refusedFabrics) it(JSON.stringify(source), () => assertRefused(source, message))
  for (const [settings, message] of refusedSettings)
    it(settings, () => {
      assertRefused(`hosts: 2\nlinks:\n  - { between: [h1, h2], ${settings} }`, message)
      assert.doesNotThrow(() => plan('hosts: 2\nlinks:\n  - { between: [h1, h2] }'))
    })
  it('loops of switches, and what switches have not', () => {
    const links = (...more: string[]) =>
      `hosts: [a]\nswitches: [s, t, u]\nlinks:\n${['{ between: [a, s] }', ...more].map(link => `  - ${link}\n`).join('')}`
    const loop = ['{ between: [s, t] }', '{ between: [t, u] }', '{ between: [u, s] }']
    assertRefused(links(...loop), /^7:5: the link between "u" and "s" makes a loop of switches/)
    assertRefused(
      links('{ between: [s, t], delay: 1ms }'),
      /^5:5: the link between "s" and "t", which are Ethernet switches, has only rate and mtu; give a link of a host the delay/,
    )
    assert.equal(plan(links('{ between: [s, t], rate: 1gbit }')).links[1]!.rate, 1e9)
  })
  it('one address and none on a segment; more segments than subnets; too many links', () => {
    const mixed =
      'hosts: 2\nswitches: [s]\nlinks:\n  - { between: [h1, s], addresses: [192.0.2.1/24] }\n  - { between: [h2, s] }'
    assertRefused(mixed, /^5:5: host "h2" has no address: if one host of a segment has one, give all of them one$/)
    const pairs = Array.from(
      { length: 258 },
      (_, i) => `  - { between: [h${2 * (i % 250) + 1}, h${2 * (i % 250) + 2}] }`,
    )
    assertRefused(`hosts: 500\nlinks:\n${pairs.join('\n')}`, /^259:5: there are more segments than subnets in 10\.77/)
    const many = Array.from({ length: 33 }, () => '  - { between: [h1, h2] }').join('\n')
    assertRefused(`hosts: 2\nlinks:\n${many}`, /^35:5: host "h1" has more than 32 links$/)
  })
  it('aliases that would expand without bounds', () => {
    const lines = ['hosts: 2', 'links: &a [&b [*b, *b], *a]']
    assertRefused(lines.join('\n'), /is no link/)
  })
})

test('any text gives a plan or a sentence with a place', () => {
  const words = ['hosts', 'switches', 'links', 'between', 'mtu', 'rate', 'h1', 'h2', 's', '2', '1gbit', '&a', '*a', '~']
  const marks = [': ', '\n', '\n  ', '\n- ', '[', ']', '{', '}', ', ', '"', "'", '|', '!!int ', '# ', '\t', '\0']
  const text = fc
    .array(fc.constantFrom(...words, ...marks), { maxLength: 40, size: 'max' })
    .map(parts => parts.join(''))
  fc.assert(
    fc.property(fc.oneof(text, fc.string({ maxLength: 60, size: 'max' })), source => {
      try {
        plan(source)
      } catch (error) {
        if (!(error instanceof InputError && /^lab\.yaml:\d+:\d+: /.test(error.message))) throw error
      }
    }),
  )
})

describe('plans', () => {
  it('the smallest file: two hosts on a switch', () => {
    const { name, hosts, switches, links } = plan('hosts: 2')
    assert.deepEqual([name, switches, links.length], ['lab', ['switch'], 2])
    assert.deepEqual(hosts[1], {
      name: 'h2',
      driver: 'rxe',
      interfaces: [
        { name: 'eth0', device: 'rxe0', address: '10.77.0.2', prefix: 24, peer: 'switch', link: { mtu: 1500 } },
      ],
      faults: '',
      names: [
        ['10.77.0.1', 'h1'],
        ['10.77.0.2', 'h2'],
      ],
    })
  })

  it('a packet meets the delay and loss of each link once', () => {
    const { hosts, links } = plan(`
hosts: { a: { driver: mlx5 }, b: { driver: efa }, c: }
switches: [s]
links:
  - { between: [a, s], delay: 20us, loss: 0.1%, rate: 2.5gbit }
  - { between: [b, s], loss: 100% }
  - { between: [b, c], delay: 3, mtu: 9000 }`)
    assert.deepEqual(
      hosts.map(({ faults }) => faults),
      [
        'device=mlx5_0,dir=both,drop=0.001,delay=0.02',
        'device=efa0,dir=both,drop=1;device=efa1,delay=3',
        'device=rxe0,delay=3',
      ],
    )
    assert.deepEqual(links[2], {
      delay: 3,
      mtu: 9000,
      ends: [
        { node: 'b', interface: 'eth1' },
        { node: 'c', interface: 'eth0' },
      ],
    })
    assert.deepEqual(hosts[2]!.names, [
      ['10.77.1.1', 'b'],
      ['10.77.1.2', 'c'],
    ])
  })

  it('groups, joined switches, given and long subnets', () => {
    const big = plan('hosts: { n: { count: 300 } }\nswitches: [s, t]\nlinks:\n  - between: [n, s]\n  - between: [s, t]')
    assert.equal(big.links.length, 301)
    const [last] = big.hosts[299]!.interfaces
    assert.deepEqual([last!.address, last!.prefix], ['10.77.1.44', 23])
    const given = plan(
      'hosts: 2\nlinks: [{ between: [h2, h1], addresses: ["fd00::2/64", "fd00::1/64"] }, { between: [h1, h2] }]',
    )
    assert.deepEqual(
      given.hosts[0]!.interfaces.map(({ device, address, prefix }) => [device, address, prefix]),
      [
        ['rxe0', 'fd00::1', 64],
        ['rxe1', '10.77.0.1', 24],
      ],
    )
    assert.deepEqual(given.hosts[0]!.names[0], ['fd00::2', 'h2'])
  })

  it('routers are hosts without devices; hosts behind them resolve each other, and have routes to all segments', () => {
    const net = plan(routed('{ between: [r, q] }', '{ between: [q, s] }', '{ between: [r, s], mtu: 9000 }'))
    const [a, b, r] = net.hosts
    assert.deepEqual([r!.name, r!.driver, r!.forwards, r!.interfaces.length], ['r', 'none', true, 3])
    assert.equal(a!.forwards, undefined)
    assert.deepEqual(
      a!.names.map(([address, name]) => `${name} ${address}`),
      ['a 10.77.0.1', 'r 10.77.0.2', 'q 10.77.2.2', 'b 10.77.1.1'],
    )
    const linesOf = (routes: Routes, node: string) => [...(routes.get(node)?.values() ?? [])]
    const routes = routesOf(net)
    assert.deepEqual(linesOf(routes, 'a'), [
      'route replace 10.77.1.0/24 proto static nexthop via 10.77.0.2 dev eth0',
      'route replace 10.77.2.0/24 proto static nexthop via 10.77.0.2 dev eth0',
      'route replace 10.77.3.0/24 proto static nexthop via 10.77.0.2 dev eth0',
    ])
    // by the link between them, and by the switch
    assert.deepEqual(linesOf(routes, 'r'), [
      'route replace 10.77.1.0/24 proto static nexthop via 10.77.2.2 dev eth1 nexthop via 10.77.3.1 dev eth2',
    ])
    const isDown = (node: string, { name }: { readonly name: string }): boolean => node === 'r' && name === 'eth1'
    assert.deepEqual(linesOf(routesOf(net, isDown), 'r'), [
      'route replace 10.77.1.0/24 proto static nexthop via 10.77.3.1 dev eth2',
      'route replace 10.77.2.0/24 proto static nexthop via 10.77.3.1 dev eth2',
    ])
    const gone = routesOf(net, node => node === 'q')
    assert.deepEqual(linesOf(gone, 'a')[0], 'route replace unreachable 10.77.1.0/24 proto static')
    assert.deepEqual(routesOf(plan('hosts: 2')), new Map())
    assert.equal(b!.faults, '')
    const slow = plan('hosts: [a]\nrouters: [r]\nlinks: [{ between: [a, r], delay: 1ms, loss: 1% }]')
    assert.equal(slow.hosts[0]!.faults, 'device=rxe0,dir=both,drop=0.01,delay=1')
  })

  it('routes of IPv6', () => {
    const net = plan(
      'hosts: [a, b]\nrouters: [r]\nlinks:\n  - { between: [a, r], addresses: ["fd00:1::5/64", "fd00:1::1/64"] }\n  - { between: [b, r], addresses: ["fd00:2:0:8::5/61", "fd00:2:0:9::1/61"] }',
    )
    assert.deepEqual(
      [...routesOf(net).get('a')!.values()],
      ['route replace fd00:2:0:8:0:0:0:0/61 proto static nexthop via fd00:1::1 dev eth0'],
    )
  })

  it('InfiniBand switches are one node of the network of IP, and a fabric with the ports of hosts', () => {
    const { hosts, switches, links, fabrics } = plan(
      'fat-tree: { leaves: 2, spines: 2, hosts: 3 }\nsubnet-manager: h2\nname: t',
    )
    assert.equal(switches.length, 1)
    const [node] = switches
    assert.deepEqual(
      links.map(({ ends }) => ends.map(end => `${end.node} ${end.interface}`)),
      [1, 2, 3].map(i => [`h${i} eth0`, `${node} port${i - 1}`]),
    )
    assert.deepEqual(
      hosts.map(({ driver, layer, interfaces: [first] }) => [driver, layer, first!.peer, first!.fabric]),
      ['leaf1', 'leaf2', 'leaf1'].map(leaf => ['mlx5', 'infiniband', leaf, node]),
    )
    assert.deepEqual(fabrics, [
      {
        node,
        switches: ['leaf1', 'leaf2', 'spine1', 'spine2'],
        links: [
          ['leaf1', 'spine1'],
          ['leaf1', 'spine2'],
          ['leaf2', 'spine1'],
          ['leaf2', 'spine2'],
        ],
        manager: 'h2',
        text: 'links=leaf1:spine1+leaf1:spine2+leaf2:spine1+leaf2:spine2,at=h1 mlx5_0:leaf1+h2 mlx5_0:leaf2+h3 mlx5_0:leaf1,manager=@h2 mlx5_0',
      },
    ])
    const { places, manager } = parseFabric(fabrics[0]!.text)
    assert.deepEqual([places.get('h3 mlx5_0'), manager], ['leaf1', { at: 'h2 mlx5_0' }])
  })

  it('links between InfiniBand switches have a rate, a delay and a loss', () => {
    const own = plan(
      `hosts: { a: { layer: infiniband } }
switches: [s, t, u]
links:
  - { between: [a, s] }
  - { between: [s, t], rate: 1gbit, delay: 20us, loss: 0.1%, mtu: 4200 }
  - { between: [t, u], delay: 0ms }`,
    )
    assert.deepEqual(parseFabric(own.fabrics[0]!.text).links, [
      { between: ['s', 't'], conditions: { rate: 1e9, delay: 0.02, loss: 0.001 } },
      { between: ['t', 'u'], conditions: {} },
    ])
    const ring = plan('ring: { switches: 3, hosts: 2, delay: 1ms }')
    assert.deepEqual(
      parseFabric(ring.fabrics[0]!.text).links.map(({ conditions }) => conditions),
      [{ delay: 1 }, { delay: 1 }, { delay: 1 }],
    )
    assert.deepEqual(
      ring.hosts.map(({ faults }) => faults),
      ['', ''],
    )
  })

  it('a host of InfiniBand has its settings, and the rate of its link', () => {
    const { hosts, fabrics } = plan(
      `hosts: { a: { layer: infiniband, guid: 0x0002c90300a1b2c3, pkeys: [0xffff, 0x8001] }, b: { driver: none }, c: }
switches: [s, t]
links:
  - { between: [a, s], rate: 1gbit, delay: 1ms, loss: 1% }
  - { between: [b, s] }
  - { between: [b, t] }
  - { between: [c, t] }`,
    )
    assert.equal(hosts[0]!.ports, ',guid=0x0002c90300a1b2c3,pkeys=0xffff+0x8001')
    assert.equal(
      hosts[0]!.faults,
      'device=mlx5_0,dir=both,drop=0.01,delay=1;device=mlx5_0,dir=sent,rate=1gbit;device=mlx5_0,rate=1gbit',
    )
    assert.deepEqual(fabrics, [{ node: 's', switches: ['s'], links: [], text: 'at=a mlx5_0:s,manager=embedded' }])
    assert.equal(hosts[2]!.layer, undefined)
  })
})
