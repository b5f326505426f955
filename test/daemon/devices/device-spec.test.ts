/*
 * Device names and addresses, NAME@ADDRESS.
 */
import assert from 'node:assert/strict'
import { isIP } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { checkDevices, deviceText, driverOf, parseDevice, specOf } from '../../../src/daemon/devices/device-spec.ts'
import { parseAddress } from '../../../src/transport/wire/address.ts'

const hex = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString('hex')

/** The address in hex. Node's URL parser writes IPv6 in the shortest form, without a dotted tail. */
const byNode = (text: string): string => {
  if (isIP(text) === 4) return `00000000000000000000ffff${Buffer.from(text.split('.').map(Number)).toString('hex')}`
  const short = new URL(`http://[${text}]`).hostname.slice(1, -1)
  const [head, tail] = short.split('::').map(half => (half === '' ? [] : half.split(':')))
  const groups = tail === undefined ? head : [...head, ...Array(8 - head.length - tail.length).fill('0'), ...tail]
  return groups.map(group => group.padStart(4, '0')).join('')
}

test('addresses in all spellings have the same bytes as in Node', () => {
  const group = fc.oneof(
    fc.constant('0'),
    fc.integer({ min: 0, max: 0xffff }).map(value => value.toString(16)),
    fc.integer({ min: 0, max: 0xffff }).map(value => value.toString(16).toUpperCase().padStart(4, '0')),
  )
  const spelling = fc
    .tuple(fc.array(group, { minLength: 8, maxLength: 8 }), fc.nat(8), fc.nat(8), fc.option(fc.ipV4()))
    .map(([groups, from, length, dotted]) => {
      // `::` replaces `length` groups at `from`, but not the dotted tail.
      const all = dotted === null ? groups : [...groups.slice(0, 6), dotted]
      const groupCount = dotted === null ? all.length : all.length - 1
      if (length === 0 || from + length > groupCount) return all.join(':')
      return `${all.slice(0, from).join(':')}::${all.slice(from + length).join(':')}`
    })
  fc.assert(
    fc.property(fc.oneof(spelling, fc.ipV6(), fc.ipV4()), text => {
      if (isIP(text) === 0) assert.equal(parseAddress(text), undefined)
      else assert.equal(hex(parseAddress(text)), byNode(text), text)
    }),
    { numRuns: 2000 },
  )
})

test('unspecified, loopback and IPv4-mapped addresses, and addresses with a dotted tail, are parsed', () => {
  assert.equal(hex(parseAddress('127.0.0.1')), '00000000000000000000ffff7f000001')
  assert.equal(hex(parseAddress('::')), '0'.repeat(32))
  assert.equal(hex(parseAddress('::1')), `${'0'.repeat(31)}1`)
  assert.equal(hex(parseAddress('fd77::')), `fd77${'0'.repeat(28)}`)
  assert.equal(hex(parseAddress('::ffff:10.77.0.2')), '00000000000000000000ffff0a4d0002')
  assert.equal(hex(parseAddress('1:2:3:4:5:6:7.8.9.10')), '0001000200030004000500060708090a')
})

test('text that is not an address is refused', () => {
  for (const text of [
    '',
    ' ',
    '1.2.3',
    '1.2.3.4.5',
    '256.1.1.1',
    '01.2.3.4',
    ':',
    ':::',
    '1::2::3',
    '12345::',
    'fe80::1%lo',
    'localhost',
    '1:2:3:4:5:6:7:8:9',
    '127.0.0.1 ',
    'g::',
  ])
    assert.equal(parseAddress(text), undefined, text)
  fc.assert(
    fc.property(fc.string(), text => {
      assert.equal(parseAddress(text) !== undefined, isIP(text) !== 0 && !text.includes('%'))
    }),
  )
})

test('NAME@ADDRESS is parsed, and mistakes are refused with a message', () => {
  assert.deepEqual(parseDevice('rxe0@127.0.0.1'), { name: 'rxe0', address: '127.0.0.1' })
  assert.deepEqual(parseDevice('rxe-a.b_c@::1'), { name: 'rxe-a.b_c', address: '::1' })
  assert.deepEqual(parseDevice('mlx5_0@127.0.0.1'), { name: 'mlx5_0', address: '127.0.0.1' })
  assert.deepEqual(parseDevice(`rxe${'x'.repeat(60)}@10.0.0.1`).name.length, 63)
  for (const [text, message] of [
    ['', /device name "".*begins with a letter or digit/],
    ['-rxe@127.0.0.1', /"-rxe".*begins with a letter or digit/],
    ['rxe/0@127.0.0.1', /"rxe\/0"/],
    ['../rxe@127.0.0.1', /"\.\.\/rxe"/],
    [`rxe${'x'.repeat(61)}@127.0.0.1`, /at most 63/],
    ['rxe0@', /"" is not an IPv4 or IPv6 address/],
    ['rxe0@localhost', /"localhost" is not an IPv4/],
    ['rxe0@1.2.3.4@5', /"1\.2\.3\.4@5" is not/],
    ['rxe0@0.0.0.0', /unspecified/],
    ['rxe0@::', /unspecified/],
    ['rxe0@224.0.0.1', /multicast/],
    ['rxe0@255.255.255.255', /reserved/],
    ['rxe0@::ffff:239.0.0.1', /multicast/],
    ['rxe0@ff02::1', /multicast/],
  ] as const)
    assert.throws(() => parseDevice(text), { name: 'Error', message }, text)
})

test('a device of a driver without a network has only a name; a soft device may have any name', () => {
  assert.deepEqual(parseDevice('ctx0'), { name: 'ctx0', address: '' })
  checkDevices(['ctx0', 'ctx1'].map(text => parseDevice(text)))
  for (const text of ['ctx0', 'rxe0@127.0.0.1', 'mlx5_0@::1']) assert.equal(deviceText(parseDevice(text)), text)
})

const drivers = [
  { name: 'rxe', hasAddress: true },
  { name: 'efa', hasAddress: true },
  { name: 'mlx5', hasAddress: true, hasFabric: true },
  { name: 'ctx' },
  { name: 'loop' },
]

test('the driver of a device follows from driver=, from its address, or from its name', () => {
  for (const [text, name] of [
    ['rxe0@127.0.0.1', 'rxe'],
    ['efa0@127.0.0.1', 'rxe'],
    ['efa0@127.0.0.1,driver=efa', 'efa'],
    ['ctx0@127.0.0.1,driver=efa,pci=81:00.0', 'efa'],
    ['loop0', 'loop'],
    ['any,driver=ctx', 'ctx'],
    ['mlx5_0@127.0.0.2,driver=mlx5,layer=infiniband,guid=0x0002c90300a1b2c3,pkeys=0xffff+0x8001', 'mlx5'],
  ] as const) {
    assert.equal(driverOf(parseDevice(text), drivers).name, name, text)
    assert.deepEqual(parseDevice(deviceText(parseDevice(text))), parseDevice(text))
  }
  for (const [text, message] of [
    ['rxe0', /device "rxe0": the address is missing.*rxe0@127\.0\.0\.1.*begin with ctx, loop\)/],
    ['mlx5_0', /the address is missing/],
    ['x,driver=efa', /the address is missing/],
    ['ctx0@127.0.0.1', /a device of driver ctx has no network; omit the address/],
    ['x@127.0.0.1,driver=loop', /a device of driver loop has no network/],
    ['x@127.0.0.1,driver=efs', /driver="efs" is not one of rxe, efa, mlx5, ctx, loop, did you mean "efa"\?/],
    ['x@127.0.0.1,driver=', /driver="" is not one of/],
  ] as const)
    assert.throws(() => driverOf(parseDevice(text), drivers), { name: 'Error', message }, text)
  assert.throws(() => parseDevice('x,driver=a,driver=b'), /driver= is given twice/)
})

test('a device that netlink adds has a driver= only if it needs one', () => {
  const textOf = (name: string, driver: string) => deviceText(specOf(name, '::1', driver, drivers))
  assert.equal(textOf('any', 'rxe'), 'any@::1')
  assert.equal(textOf('ctx7', 'rxe'), 'ctx7@::1,driver=rxe')
  assert.equal(textOf('any', 'efa'), 'any@::1,driver=efa')
})

test('rate control is asked for with or without a line rate, of drivers that have it', () => {
  assert.equal(parseDevice('rxe0@127.0.0.1,dcqcn').dcqcn, 40e9)
  const spec = parseDevice('mlx5_0@127.0.0.1,dcqcn=25gbit,driver=mlx5')
  assert.deepEqual(spec, { name: 'mlx5_0', address: '127.0.0.1', driver: 'mlx5', dcqcn: 25e9 })
  assert.equal(deviceText(spec), 'mlx5_0@127.0.0.1,driver=mlx5,dcqcn=25gbit')
  for (const rate of ['', '0', '900gbit', 'fast', '40 gbit'])
    assert.throws(() => parseDevice(`rxe0@127.0.0.1,dcqcn=${rate}`), {
      message: `device "rxe0@127.0.0.1,dcqcn=${rate}": dcqcn="${rate}": give a line rate from 1mbit to 800gbit, for example 40gbit`,
    })
  assert.throws(() => parseDevice('rxe0@127.0.0.1,dcqcn,dcqcn=1gbit'), /dcqcn= is given twice/)
  const drivers = [
    { name: 'rxe', hasAddress: true, hasRateControl: true },
    { name: 'efa', hasAddress: true },
  ]
  assert.equal(driverOf(parseDevice('rxe0@127.0.0.1,dcqcn'), drivers).name, 'rxe')
  assert.throws(
    () => driverOf(parseDevice('efa0@127.0.0.1,driver=efa,dcqcn'), drivers),
    /driver efa has no rate control; omit dcqcn/,
  )
})

test('a list with a duplicate name or address is refused, in any spelling of the address', () => {
  const list = (...devices: string[]) => checkDevices(devices.map(text => parseDevice(text)))
  list('rxe0@127.0.0.1', 'rxe1@127.0.0.2', 'rxe2@::1')
  assert.throws(() => list('rxe0@127.0.0.1', 'rxe0@127.0.0.2'), /"rxe0" is given twice/)
  assert.throws(() => list('rxe0@127.0.0.1', 'rxe1@::ffff:127.0.0.1'), /rxe0 and rxe1 have the same address/)
  assert.throws(() => list('rxe0@::1', 'rxe1@0:0::0:1'), /same address/)
})

test('a PCI function after the address is parsed, and mistakes name the value and what is allowed', () => {
  const pci = { address: '0000:81:00.0', node: -1, model: 'mlx5' }
  assert.deepEqual(parseDevice('mlx5_0@127.0.0.1,pci=81:00.0'), { name: 'mlx5_0', address: '127.0.0.1', pci })
  for (const text of ['a@::1,pci=00ab:1f:1f.7,numa=1,model=efa', 'ctx0,pci=0000:81:00.0,model=irdma'])
    assert.equal(deviceText(parseDevice(text)), text)
  assert.deepEqual(parseDevice('a@::1,model=irdma,numa=-1,pci=00AB:FF:00.1').pci, {
    address: '00ab:ff:00.1',
    node: -1,
    model: 'irdma',
  })
  for (const [settings, message] of [
    ['pci=', /pci="": a PCI address is \[DOMAIN:\]BUS:DEVICE\.FUNCTION/],
    ['pci=81:20.0', /pci="81:20\.0".*a device up to 1f/],
    ['pci=81:00.8', /pci="81:00\.8".*a function up to 7/],
    ['pci=../../../../tmp', /pci="\.\.\/\.\.\/\.\.\/\.\.\/tmp"/],
    ['pci=81:00.0,numa=1024', /numa="1024".*from 0 to 1023, or -1 for none/],
    ['pci=81:00.0,numa=', /numa="".*from 0 to 1023/],
    ['pci=81:00.0,model=rxe', /model="rxe" is not one of mlx5, efa, irdma/],
    ['pci=81:00.0,pci=82:00.0', /pci= is given twice/],
    ['numa=0', /numa=0 needs a PCI function/],
    [
      'bus=1',
      /"bus=1" is no setting of a device; after the address may follow driver=, layer=, guid=, pkeys=, dcqcn, pci=, numa=, model=, node_guid=, vlan=, and the limits max_qp=, .*max_qp_rd_atom=/,
    ],
    ['vlan=10.0.0.9', /10.0.0.9 is before a number; give the number of a VLAN from 1 to 4094/],
    ['vlan=4095+10.0.0.9', /4095 is no VLAN/],
    ['vlan=7+fe80::1', /fe80::1 is link-local/],
    ['layer=ib', /layer="ib" is not one of ethernet, infiniband/],
    ['guid=0x1', /guid= is a setting of an InfiniBand port: give layer=infiniband too/],
    ['layer=infiniband,guid=0x1', /guid="0x1": a GUID has 16 hexadecimal digits/],
    ['layer=infiniband,pkeys=0xffff+0x8000', /pkeys="0xffff\+0x8000": give 1 to 128 partition keys/],
    ['node_guid=12', /guid="12": a GUID has 16 hexadecimal digits/],
    ['layer=infiniband,node_guid=0', /node_guid= is not for an InfiniBand port: give guid=/],
    ['', /"" is no setting/],
  ] as const)
    assert.throws(() => parseDevice(`rxe0@127.0.0.1,${settings}`), { name: 'Error', message })
  const list = (...devices: string[]) => checkDevices(devices.map(text => parseDevice(text)))
  list('a@::1,pci=81:00.0', 'b@::2,pci=81:00.1', 'ctx0,pci=0001:81:00.0')
  assert.throws(() => list('a@::1,pci=81:00.0', 'b@::2,pci=0000:81:00.0'), /a and b have the same PCI address 0000:81/)
})
