/*
 * The text of `--fabric`.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseFabric } from '../../src/settings/fabric.ts'

describe('a fabric', () => {
  test('has a shape, switches with links, a subnet manager or none', () => {
    const tree = parseFabric('fat-tree,leaves=2,spines=2,at=mlx5_7:spine1')
    assert.deepEqual(tree.switches, ['leaf1', 'leaf2', 'spine1', 'spine2'])
    assert.deepEqual(
      tree.links.map(({ between }) => between),
      [
        ['leaf1', 'spine1'],
        ['leaf1', 'spine2'],
        ['leaf2', 'spine1'],
        ['leaf2', 'spine2'],
      ],
    )
    assert.deepEqual([tree.leaves, tree.places.get('mlx5_7'), tree.manager], [['leaf1', 'leaf2'], 'spine1', 'embedded'])
    const ring = parseFabric('ring,switches=3,manager=none')
    assert.deepEqual([ring.links.length, ring.links.at(-1)?.between, ring.manager], [3, ['switch3', 'switch1'], 'none'])
    const own = parseFabric('links=a:b,at=mlx5_0:c')
    assert.deepEqual(
      [own.switches, own.leaves],
      [
        ['a', 'b', 'c'],
        ['a', 'b', 'c'],
      ],
    )
    assert.deepEqual(parseFabric('manager=none').switches, [])
    assert.deepEqual(parseFabric('links=a:b/loss=1%/delay=5us+b:c,rate=1gbit,delay=1ms').links, [
      { between: ['a', 'b'], conditions: { rate: 1e9, delay: 0.005, loss: 0.01 } },
      { between: ['b', 'c'], conditions: { rate: 1e9, delay: 1 } },
    ])
    assert.deepEqual(parseFabric('manager=@h1 mlx5_0').manager, { at: 'h1 mlx5_0' })
    assert.equal(parseFabric('ring,switches=3,serve=/run/ports').serve, '/run/ports')
    assert.equal(parseFabric('socket=/a,b=c').socket, '/a,b=c')
  })

  test('a mistake is told with what is allowed', () => {
    for (const [text, message] of [
      ['fat-tee,leaves=1,spines=1', /"fat-tee" is no shape of a fabric, did you mean "fat-tree"\?/],
      ['fat-tree,leaves=4', /a fat-tree needs spines=, an integer from 1 to 32/],
      ['fat-tree,leaves=99,spines=1', /leaves="99": give an integer from 1 to 32/],
      ['ring,switches=2', /switches="2": give an integer from 3 to 64/],
      ['ring,switches=3,leaves=2', /leaves is no setting of a ring/],
      ['ring,switches=3,links=a:b', /links are those of the ring/],
      ['manager=opensm', /manager="opensm" is not one of embedded, none, @DEVICE/],
      ['serve=ports', /serve="ports": give an absolute path/],
      ['socket=', /socket="": give an absolute path/],
      ['manger=none', /"manger=none" is no setting of a fabric, did you mean "manager"\?/],
      ['links=a:a', /links="a:a": give pairs of two names, such as a:b/],
      ['at=mlx5_0', /at="mlx5_0": give pairs of two names, such as mlx5_0:a/],
      ['ring,switches=3,at=mlx5_0:b', /at="mlx5_0:b": there is no switch "b"/],
      ['manager=none,manager=none', /manager is given twice/],
      ['links=a:b/speed=1', /links="a:b\/speed=1": "speed=1" is no setting of a link; there are rate, delay, loss/],
      ['links=a:b/loss=2', /links="a:b\/loss=2": loss="2" is not a probability/],
      ['ring,switches=3,delay=1s', /delay="1s": a link between InfiniBand switches has at most 100ms/],
      ['loss=1%', /loss is of links between switches, and there are none; give a shape or links=/],
    ] as const)
      assert.throws(() => parseFabric(text), message, text)
  })
})
