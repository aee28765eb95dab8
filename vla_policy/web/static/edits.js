// Marks, sentences and deletions that can be undone until they are saved.

export class Edits {
  constructor() {
    this.clear();
  }

  clear() {
    this.now = { marked: new Set(), deleted: new Set(), tasks: new Map() };
    this.before = [];
  }

  get changed() {
    return this.now.deleted.size + this.now.tasks.size;
  }

  /** Make a change of a copy, so that it can be undone. */
  change(make) {
    const { marked, deleted, tasks } = this.now;
    this.before.push(this.now);
    this.now = { marked: new Set(marked), deleted: new Set(deleted), tasks: new Map(tasks) };
    make(this.now);
  }

  undo() {
    this.now = this.before.pop() ?? this.now;
  }

  asJson() {
    return { deleted: [...this.now.deleted], tasks: Object.fromEntries(this.now.tasks) };
  }
}
