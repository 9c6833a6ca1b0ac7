"use strict";

// Radio groups with data-shows="prefix" show the element #prefix-<value> and hide its siblings.
for (const group of document.querySelectorAll("[data-shows]")) {
  const show = () => {
    for (const input of group.querySelectorAll("input")) {
      document.getElementById(`${group.dataset.shows}-${input.value}`).hidden = !input.checked;
    }
  };
  group.addEventListener("change", show);
  show();
}

const gallery = document.querySelector(".gallery");
if (gallery) {
  const view = document.getElementById("view");
  const showView = () => {
    gallery.dataset.view = view.querySelector(":checked").value;
  };
  view.addEventListener("change", showView);
  showView();
  const windows = [...gallery.querySelectorAll(".window")];
  document.getElementById("opacity").addEventListener("input", (event) => {
    gallery.style.setProperty("--opacity", event.target.value / 100);
    event.target.nextElementSibling.value = `${event.target.value} %`;
  });
  document.getElementById("zoom").addEventListener("input", (event) => {
    const zoom = event.target.value / 100;
    const grows = zoom / (parseFloat(gallery.style.getPropertyValue("--zoom")) || 1);
    gallery.style.setProperty("--zoom", zoom);
    event.target.nextElementSibling.value = `${zoom} ×`;
    for (const one of windows) {  // what is in the middle stays there
      one.scrollLeft = (one.scrollLeft + one.clientWidth / 2) * grows - one.clientWidth / 2;
      one.scrollTop = (one.scrollTop + one.clientHeight / 2) * grows - one.clientHeight / 2;
    }
  });
  // Truth, prediction and errors of one image scroll together.
  for (const figure of gallery.querySelectorAll("figure")) {
    const together = [...figure.querySelectorAll(".window")];
    for (const one of together) {
      one.addEventListener("scroll", () => {
        for (const other of together) {
          if (other.scrollLeft !== one.scrollLeft) other.scrollLeft = one.scrollLeft;
          if (other.scrollTop !== one.scrollTop) other.scrollTop = one.scrollTop;
        }
      });
    }
  }
}

// The confusion matrix: what a cell means, for the pointer and for the arrow keys.
for (const table of document.querySelectorAll(".matrix table")) {
  const readout = document.getElementById("readout");
  const cells = [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("td")]);
  let row = 0, column = 0;
  const point = (r, c) => {
    cells[row][column].classList.remove("current");
    [row, column] = [r, c];
    const cell = cells[row][column];
    cell.classList.add("current");
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    readout.textContent = cell.dataset.says;
  };
  table.addEventListener("pointerover", (event) => {
    const cell = event.target.closest("td");
    if (cell) readout.textContent = cell.dataset.says;
  });
  table.addEventListener("focus", () => point(row, column));
  table.addEventListener("blur", () => cells[row][column].classList.remove("current"));
  table.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!(event.key in step)) return;
    event.preventDefault();
    const last = cells.length - 1;
    const [down, right] = step[event.key];
    point(
      Math.min(last, Math.max(0, row + down)),
      Math.min(last, Math.max(0, column + right)),
    );
  });
}
