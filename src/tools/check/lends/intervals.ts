/*
 * Ranges of addresses that may overlap, each with a value, in a treap by their starts: to add or remove one, and to
 * find the one that reaches farthest from an address, takes O(log n) steps, whatever overlaps.
 */

/** A range in `Intervals`, for its removal. */
export interface Interval<T> {
  readonly start: number
  readonly end: number
  readonly value: T
}

interface Node<T> extends Interval<T> {
  /** Orders ranges with the same start. */
  readonly order: number
  readonly priority: number
  left: Node<T> | undefined
  right: Node<T> | undefined
  /** The node of this subtree with the largest end. */
  farthest: Node<T>
}

/** Depends only on the number: what a session file finds is what was found. */
const priorityOf = (order: number): number => Math.imul(order ^ (order >>> 15), 0x2c1b3c6d) >>> 0

const isBefore = <T>(node: Node<T>, start: number, order: number): boolean =>
  node.start < start || (node.start === start && node.order < order)

const update = <T>(node: Node<T>): Node<T> => {
  let farthest = node
  if (node.left !== undefined && node.left.farthest.end > farthest.end) farthest = node.left.farthest
  if (node.right !== undefined && node.right.farthest.end > farthest.end) farthest = node.right.farthest
  node.farthest = farthest
  return node
}

type Tree<T> = Node<T> | undefined

/** Of the last split: nodes before the key, and the others. No record is made for each level. */
const halves: { before: Tree<unknown>; after: Tree<unknown> } = { before: undefined, after: undefined }

const split = <T>(tree: Tree<T>, start: number, order: number): void => {
  if (tree === undefined) {
    halves.before = undefined
    halves.after = undefined
  } else if (isBefore(tree, start, order)) {
    split(tree.right, start, order)
    tree.right = halves.before as Tree<T>
    halves.before = update(tree)
  } else {
    split(tree.left, start, order)
    tree.left = halves.after as Tree<T>
    halves.after = update(tree)
  }
}

/** All nodes of `a` are before those of `b`. */
const merge = <T>(a: Tree<T>, b: Tree<T>): Tree<T> => {
  if (a === undefined) return b
  if (b === undefined) return a
  if (a.priority > b.priority) {
    a.right = merge(a.right, b)
    return update(a)
  }
  b.left = merge(a, b.left)
  return update(b)
}

export class Intervals<T> {
  #root: Tree<T>
  #orders = 0
  size = 0

  /** Adds the range from `start` to before `end`. */
  add(start: number, end: number, value: T): Interval<T> {
    const order = ++this.#orders
    const node = { start, end, value, order, priority: priorityOf(order), left: undefined, right: undefined } as Node<T>
    node.farthest = node
    split(this.#root, start, order)
    const { before, after } = halves as { before: Tree<T>; after: Tree<T> }
    this.#root = merge(merge(before, node), after)
    this.size++
    return node
  }

  /** Removes a range that `add` has returned, and that was not removed. */
  remove(interval: Interval<T>): void {
    const { start, order } = interval as Node<T>
    split(this.#root, start, order)
    const before = halves.before as Tree<T>
    split(halves.after as Tree<T>, start, order + 1)
    this.#root = merge(before, halves.after as Tree<T>)
    this.size--
  }

  /** Gives a range another value. */
  replace(interval: Interval<T>, value: T): Interval<T> {
    ;(interval as { value: T }).value = value
    return interval
  }

  /** Of the ranges that start at or before an address, the one with the largest end. */
  farthest(address: number): Interval<T> | undefined {
    let best: Node<T> | undefined
    let node = this.#root
    while (node !== undefined) {
      if (node.start > address) {
        node = node.left
        continue
      }
      const left = node.left?.farthest
      if (left !== undefined && (best === undefined || left.end > best.end)) best = left
      if (best === undefined || node.end > best.end) best = node
      node = node.right
    }
    return best
  }

  /** The range with the lowest start. */
  first(): Interval<T> | undefined {
    let node = this.#root
    while (node?.left !== undefined) node = node.left
    return node
  }

  /** The ranges that have a byte of those from `start` to before `end`, by their starts; at most the first `most`. */
  overlapping(start: number, end: number, most = Number.POSITIVE_INFINITY): T[] {
    const found: T[] = []
    const visit = (node: Tree<T>): void => {
      if (node === undefined || node.farthest.end <= start || found.length >= most) return
      visit(node.left)
      if (node.start >= end || found.length >= most) return
      if (node.end > start) found.push(node.value)
      visit(node.right)
    }
    visit(this.#root)
    return found
  }
}
